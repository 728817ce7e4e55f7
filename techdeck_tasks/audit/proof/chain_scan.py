"""Recomputing a stretch of one writer's chain from PostgreSQL's binary format: the part that takes the time.

A stretch is checked alone, by any process; how stretches join is judged afterwards, by `chain_judge`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import Connection, text

from techdeck_tasks.audit.canonical import HEAD, event_id_of
from techdeck_tasks.audit.copied_row import COLUMNS, Place, unpack
from techdeck_tasks.audit.proof.chain import Head, hash_row
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.writing.bulk import copied_rows
from techdeck_tasks.audit.writing.writer import MAX_CLOCK_SKEW

STRETCH_ROWS = 50_000
MAX_FAULTS = 100
"""So many faults of a kind a stretch names one by one; where everything was changed, more say nothing new."""

_ROWS = f"""
    COPY (
        SELECT {", ".join(COLUMNS)} FROM audit_event
        WHERE writer_id = %s AND writer_seq BETWEEN %s AND %s ORDER BY writer_seq
    ) TO STDOUT (FORMAT BINARY)
"""  # noqa: S608 - our own column names
_MAX_SKEW_US = MAX_CLOCK_SKEW.total_seconds() * 1_000_000
_MAX_INT64 = (1 << 63) - 1

SET_SNAPSHOT = psycopg.sql.SQL("SET TRANSACTION SNAPSHOT {}")
"""Makes a transaction see what the one sees that exported the snapshot."""

_FIRST = text("SELECT writer_id, writer_seq FROM audit_event ORDER BY writer_id, writer_seq LIMIT 1")
_NEXT = text("""
    SELECT writer_id, writer_seq FROM audit_event
    WHERE (writer_id, writer_seq) > (:writer_id, CAST(:seq AS bigint)) ORDER BY writer_id, writer_seq LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows `first` to `last` of a writer's chain, and the hashes that signed checkpoints know of them."""

    writer_id: str
    first: int
    last: int
    signed_hashes: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joint:
    """A row that does not simply follow the one before: the first of its stretch, behind a gap, or relinked.

    Attributes:
        before: the last row before it in the stretch, None for the first one.
        seq: its number.
        prev_hash: what it says to follow.
    """

    before: Head | None
    seq: int
    prev_hash: bytes


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row whose hash is not the one of its place."""

    seq: int
    recorded_us: int
    content_digest: bytes
    prev_hash: bytes
    row_hash: bytes

    def fits(self, writer_id: str, seq: int) -> bool:
        """Tell whether its hash is the one of place `seq`."""
        place = (self.prev_hash, writer_id.encode(), seq, self.recorded_us, self.content_digest)
        return hash_row(*place) == self.row_hash


@dataclass(slots=True)
class Scan:
    """What a stretch turned out to be.

    Attributes:
        stretch: what was scanned.
        rows: how many there are.
        end: its last row.
        joints: its first row, and each that does not simply follow.
        misfits: rows whose hash does not fit.
        contradicted: numbers of rows that signed checkpoints know with another hash.
        findings: what is wrong with single rows.
    """

    stretch: Stretch
    rows: int = 0
    end: Head | None = None
    joints: list[Joint] = field(default_factory=list)
    misfits: list[Misfit] = field(default_factory=list)
    contradicted: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def find_stretches(
    connection: Connection, start: Mapping[str, Head], signed_hashes: Mapping[str, Mapping[int, bytes]]
) -> Iterator[Stretch]:
    """Yield stretches that hold every row behind `start`, in the chains' order.

    Args:
        connection: the snapshot to look at.
        start: how far chains need no look.
        signed_hashes: by writer and number, what checkpoints know.
    """
    found = connection.execute(_FIRST).one_or_none()
    writer_id: str | None = None
    while found is not None:
        if found.writer_id != writer_id:
            writer_id = found.writer_id
            skip = start.get(writer_id)
            if skip is not None and found.writer_seq <= skip.seq:
                found = connection.execute(_NEXT, {"writer_id": writer_id, "seq": skip.seq}).one_or_none()
                continue
        first: int = found.writer_seq
        # Any number can stand in a row that somebody wrote.
        last = min(first + STRETCH_ROWS - 1, _MAX_INT64)
        known = signed_hashes.get(found.writer_id, {})
        inside = {seq: row_hash for seq, row_hash in known.items() if first <= seq <= last}
        yield Stretch(found.writer_id, first, last, inside)
        found = connection.execute(_NEXT, {"writer_id": found.writer_id, "seq": last}).one_or_none()


def scan(connection: psycopg.Connection, stretch: Stretch) -> Scan:
    """Recompute each row of `stretch`; stored digests and hashes are compared, never trusted."""
    result = Scan(stretch)
    faults = _Faults(stretch.writer_id, result.findings)
    writer = stretch.writer_id.encode()
    signed_hashes = stretch.signed_hashes
    seq, last_hash = 0, b""
    for place, content in _rows(connection, stretch):
        occurred_us, recorded_us, row_seq, digest, prev_hash, row_hash = place
        result.rows += 1
        edited = (
            hashlib.sha256(HEAD + content).digest() != digest
            or occurred_us != int.from_bytes(event_id_of(content)[:6]) * 1000
        )
        fits = hash_row(prev_hash, writer, row_seq, recorded_us, digest) == row_hash
        if edited:
            faults.add(Verdict.ROW_EDITED, _name(row_seq, content))
        elif fits and occurred_us > recorded_us + _MAX_SKEW_US:
            faults.add(Verdict.ROW_FROM_THE_FUTURE, _name(row_seq, content))
        if not fits:
            result.misfits.append(Misfit(row_seq, recorded_us, digest, prev_hash, row_hash))
        if row_seq < 1 or (row_seq == seq and result.end is not None):
            faults.add(Verdict.ROW_INSERTED, f"row {row_seq}: its chain has that number already, or never")
            continue
        if row_seq in signed_hashes and signed_hashes[row_seq] != row_hash:
            result.contradicted.append(row_seq)
        if row_seq != seq + 1 or prev_hash != last_hash:
            before = None if result.end is None else Head(stretch.writer_id, seq, last_hash)
            result.joints.append(Joint(before, row_seq, prev_hash))
        # From the stored hash on, so that one fault is reported once and not on every later row.
        seq, last_hash = row_seq, row_hash
        if result.end is None:
            result.end = Head(stretch.writer_id, seq, last_hash)
    if result.end is not None:
        result.end = Head(stretch.writer_id, seq, last_hash)
    faults.close()
    return result


def _name(seq: int, content: memoryview) -> str:
    return f"row {seq}, event {uuid.UUID(bytes=event_id_of(content))}"


def _rows(connection: psycopg.Connection, stretch: Stretch) -> Iterator[tuple[Place, memoryview]]:
    parameters = (stretch.writer_id, stretch.first, stretch.last)
    with connection.cursor() as cursor, cursor.copy(_ROWS, parameters) as copy:
        yield from map(unpack, copied_rows(connection, copy))


class _Faults:
    """Findings of a stretch, the first ones of each kind one by one, the rest as a number."""

    def __init__(self, chain: str, findings: list[Finding]) -> None:
        self._chain = chain
        self._findings = findings
        self._numbers: dict[Verdict, int] = {}

    def add(self, verdict: Verdict, detail: str) -> None:
        number = self._numbers[verdict] = self._numbers.get(verdict, 0) + 1
        if number <= MAX_FAULTS:
            self._findings.append(Finding(verdict, self._chain, detail))

    def close(self) -> None:
        for verdict, number in self._numbers.items():
            if number > MAX_FAULTS:
                detail = f"and {number - MAX_FAULTS} more rows nearby"
                self._findings.append(Finding(verdict, self._chain, detail))


# -- in a process of the pool ---------------------------------------------------------------------------

_pooled: list[psycopg.Connection] = []


def join_snapshot(conninfo: str, password: str, snapshot: str) -> None:
    """Connect this process of the pool to the verification's snapshot."""
    connection = psycopg.connect(conninfo, password=password or None)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    connection.execute(SET_SNAPSHOT.format(snapshot))
    _pooled.append(connection)


def scan_in_pool(stretch: Stretch) -> Scan:
    """Scan in a process of the pool."""
    return scan(_pooled[0], stretch)
