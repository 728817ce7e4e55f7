"""Proving that nobody changed the log. Needs no key: digests and chains cover clear columns and ciphertext.

What it cannot see: that the newest rows, their ids and their writers' heads were all removed or rewritten
together. For that something outside the database must remember the heads.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, Engine, select, text

from techdeck_tasks.audit.bulk import bulk_copy
from techdeck_tasks.audit.canonical import COLUMN_NAMES, encode_packed, microseconds
from techdeck_tasks.audit.chain import Head, hash_row
from techdeck_tasks.audit.models import AuditWriterHead
from techdeck_tasks.storage.database import transaction

SETTLING = timedelta(minutes=10)
"""So long an event may be behind a later one of its producer: in the stream, or in another worker's batch."""

_PLACE_COLUMNS = (
    "occurred_at",
    "recorded_at",
    "writer_id",
    "writer_seq",
    "content_digest",
    "prev_hash",
    "row_hash",
)
_ROWS = f"""
    COPY (
        SELECT {", ".join((*COLUMN_NAMES, *_PLACE_COLUMNS))} FROM audit_event ORDER BY writer_id, writer_seq
    ) TO STDOUT (FORMAT BINARY)
"""  # noqa: S608 - our own column names
_CONTENT = slice(0, len(COLUMN_NAMES))
_PLACE = slice(len(COLUMN_NAMES), None)
_WRITER_ID = len(COLUMN_NAMES) + _PLACE_COLUMNS.index("writer_id")
_EVENT_ID = COLUMN_NAMES.index("event_id")
_INT64 = struct.Struct(">q")
_POSTGRES_EPOCH_US = microseconds(datetime.fromisoformat("2000-01-01T00:00:00Z"))

# Both tables are written in one transaction: what is in one of them only was removed from the other.
_UNMATCHED = text("""
    SELECT e.event_id IS NULL AS row_missing, count(*) AS number, min(CAST(event_id AS text)) AS example
    FROM audit_event e FULL JOIN audit_event_id i USING (occurred_at, event_id)
    WHERE e.content_digest IS DISTINCT FROM i.content_digest
    GROUP BY row_missing ORDER BY row_missing
""")

_PRODUCERS = text("""
    WITH settled AS (
        SELECT producer_id, max(producer_seq) AS last FROM audit_event
        WHERE recorded_at < now() - CAST(:settling AS interval) GROUP BY producer_id
    )
    SELECT producer_id, last, count(*) AS rows, count(DISTINCT producer_seq) AS numbers
    FROM audit_event JOIN settled USING (producer_id) WHERE producer_seq <= last
    GROUP BY producer_id, last
    HAVING count(DISTINCT producer_seq) <> last OR count(*) <> last
    ORDER BY producer_id
""")


class Verdict(StrEnum):
    """What can be wrong with the log."""

    ROW_EDITED = "row_edited"
    """Content and digest do not match: a clear column or the ciphertext was changed."""
    CHAIN_BROKEN = "chain_broken"
    """A row does not follow from the one before it: inserted, reordered, or rewritten."""
    ROWS_MISSING = "rows_missing"
    """Rows were removed: numbers of a writer's chain are missing, or ids on record have no row."""
    TAIL_CUT = "tail_cut"
    """A chain ends before its writer's head."""
    HEAD_MISSING = "head_missing"
    """Rows of a writer whose head is gone."""
    IDS_CHANGED = "ids_changed"
    """Rows whose id is not on record, or with another digest: their events could be written twice."""
    EVENTS_LOST = "events_lost"
    """A producer counted events that never arrived: removed, or lost where the producer was killed."""
    EVENTS_REPEATED = "events_repeated"
    """A producer's number stands on several rows: forged in its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where; `chain` is a writer's or a producer's id, or a table."""

    verdict: Verdict
    chain: str
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and found. An untouched log has no findings."""

    rows: int
    writers: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(engine: Engine, settling: timedelta = SETTLING) -> VerifyReport:
    """Recompute every digest and chain from the rows; stored hashes are compared, never trusted.

    Args:
        engine: the database.
        settling: gaps in a producer's numbers count only before its events that were recorded longer ago.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
    """
    findings: list[Finding] = []
    rows = 0
    with transaction(engine) as connection:
        # One snapshot: rows that are being written meanwhile are seen with their head, or not at all.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        heads = {
            row.writer_id: Head(row.writer_id, row.writer_seq, bytes(row.row_hash))
            for row in connection.execute(select(AuditWriterHead.__table__))
        }
        chains: dict[bytes, _Chain] = {}
        with bulk_copy(connection, _ROWS) as copy:
            for row in copy.rows():
                rows += 1
                chain = chains.get(row[_WRITER_ID]) or chains.setdefault(
                    row[_WRITER_ID], _Chain(row[_WRITER_ID])
                )
                findings.extend(chain.follow(row))
        findings.extend(_compare_heads(heads, {chain.name: chain for chain in chains.values()}))
        findings.extend(_unmatched_ids(connection))
        findings.extend(_producer_gaps(connection, settling))
    return VerifyReport(rows, len(chains), tuple(findings))


class _Chain:
    """One writer's rows, recomputed in their order from PostgreSQL's binary format."""

    def __init__(self, writer_id: bytes) -> None:
        self.name = writer_id.decode()
        self._writer_id = writer_id
        self.seq, self.row_hash = 0, Head.genesis(self.name).row_hash

    def follow(self, row: tuple[bytes, ...]) -> list[Finding]:
        """Go on to `row`, and return what is wrong with it."""
        occurred_at, recorded_at, _, packed_seq, digest, prev_hash, row_hash = row[_PLACE]
        seq = _unpack(packed_seq)
        wrong = []
        content = row[_CONTENT]
        time_ms = int.from_bytes(content[_EVENT_ID][:6])
        if (
            hashlib.sha256(encode_packed(content)).digest() != digest
            or _unpack(occurred_at) != time_ms * 1000 - _POSTGRES_EPOCH_US
        ):
            detail = f"row {seq}, event {uuid.UUID(bytes=content[_EVENT_ID])}"
            wrong.append(Finding(Verdict.ROW_EDITED, self.name, detail))
        if seq > self.seq + 1:
            wrong.append(Finding(Verdict.ROWS_MISSING, self.name, f"rows {self.seq + 1} to {seq - 1}"))
        elif seq != self.seq + 1 or prev_hash != self.row_hash:
            detail = f"row {seq} does not follow row {self.seq}"
            wrong.append(Finding(Verdict.CHAIN_BROKEN, self.name, detail))
        # From the stored link on, so that one fault is reported once and not on every later row.
        recorded_us = _unpack(recorded_at) + _POSTGRES_EPOCH_US
        if hash_row(prev_hash, self._writer_id, seq, recorded_us, digest) != row_hash:
            detail = f"row {seq} does not match its hash"
            wrong.append(Finding(Verdict.CHAIN_BROKEN, self.name, detail))
        self.seq, self.row_hash = seq, row_hash
        return wrong


def _unpack(packed: bytes) -> int:
    number: int = _INT64.unpack(packed)[0]
    return number


def _compare_heads(heads: Mapping[str, Head], chains: Mapping[str, _Chain]) -> Iterator[Finding]:
    for writer, end in chains.items():
        head = heads.get(writer)
        if head is None:
            yield Finding(Verdict.HEAD_MISSING, writer, f"{end.seq} rows, no head")
        elif end.seq < head.seq:
            yield Finding(Verdict.TAIL_CUT, writer, f"ends at row {end.seq}; its head is at {head.seq}")
        elif (end.seq, end.row_hash) != (head.seq, head.row_hash):
            detail = f"head at row {head.seq} does not match row {end.seq}"
            yield Finding(Verdict.CHAIN_BROKEN, writer, detail)
    for writer, head in heads.items():
        if writer not in chains and head.seq > 0:
            yield Finding(Verdict.TAIL_CUT, writer, f"no rows; its head is at {head.seq}")


def _unmatched_ids(connection: Connection) -> Iterator[Finding]:
    for found in connection.execute(_UNMATCHED):
        if found.row_missing:
            detail = f"{found.number} ids on record have no row, the first is {found.example}"
            yield Finding(Verdict.ROWS_MISSING, "audit_event", detail)
        else:
            detail = (
                f"{found.number} rows have no id on record with their digest, the first is {found.example}"
            )
            yield Finding(Verdict.IDS_CHANGED, "audit_event_id", detail)


def _producer_gaps(connection: Connection, settling: timedelta) -> Iterator[Finding]:
    for gap in connection.execute(_PRODUCERS, {"settling": settling}):
        producer = str(gap.producer_id)
        if gap.numbers < gap.last:
            detail = f"{gap.last - gap.numbers} of {gap.last} events of this producer are missing"
            yield Finding(Verdict.EVENTS_LOST, producer, detail)
        if gap.numbers < gap.rows:
            detail = f"{gap.rows - gap.numbers} numbers of this producer stand on more than one row"
            yield Finding(Verdict.EVENTS_REPEATED, producer, detail)
