"""Tombstones: signed statements of what a dropped partition held.

Retention removes whole months. A tombstone says which rows of which chains are gone on purpose; every other
missing row is a finding. Rows of one month need not follow each other in their chains (an event may arrive
late), so a tombstone lists runs.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from typing import Self

from sqlalchemy import Connection, text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.month import bounds_of, first_day_of
from techdeck_tasks.audit.proof.statement import Signed, StatementReader, StatementWriter
from techdeck_tasks.audit.writing.gap import lost_numbers

_MAGIC, _VERSION = b"TDTS", 2
_BEFORE_COPIES = 1
"""The version of tombstones that were in the database alone."""

_RUNS = text("""
    SELECT writer_id, min(writer_seq) AS first, max(writer_seq) AS last,
        (array_agg(prev_hash ORDER BY writer_seq))[1] AS prev_hash,
        (array_agg(row_hash ORDER BY writer_seq DESC))[1] AS row_hash
    FROM (
        SELECT writer_id, writer_seq, prev_hash, row_hash,
            writer_seq - row_number() OVER (PARTITION BY writer_id ORDER BY writer_seq) AS run
        FROM audit_event WHERE occurred_at >= :first_day AND occurred_at < :next_month
    ) numbered
    GROUP BY writer_id, run ORDER BY writer_id, first
""")
# Those without rows elsewhere, too: a silent producer may go on.
_PRODUCERS = text("""
    SELECT producer_id, count(DISTINCT producer_seq) AS numbers
    FROM audit_event WHERE occurred_at >= :first_day AND occurred_at < :next_month
    GROUP BY producer_id ORDER BY producer_id
""")
_GAPS = text("""
    SELECT producer_id, outcome FROM audit_event
    WHERE occurred_at >= :first_day AND occurred_at < :next_month AND event_type = :gap
""")


@dataclass(frozen=True, slots=True)
class ChainRun:
    """Rows `first` to `last` of a writer's chain, without a gap; the hashes before and at its end."""

    writer_id: str
    first: int
    last: int
    prev_hash: bytes
    row_hash: bytes


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is signed.

    Attributes:
        month: its first day.
        rows: how many rows the partition held.
        runs: which rows those were.
        producers: how many numbers of each producer, with those that it had put on record as lost.
        archive_digest: SHA-256 of the archive that was written before.
        made_at: aware UTC.
        made_by: who decided.
        in_archive: whether a copy was stored beside the archive.
    """

    month: date
    rows: int
    runs: tuple[ChainRun, ...]
    producers: tuple[tuple[uuid.UUID, int], ...]
    archive_digest: bytes
    made_at: datetime
    made_by: str
    in_archive: bool = True

    @property
    def key(self) -> date:
        """What names it in its table."""
        return self.month

    @classmethod
    def survey(
        cls, connection: Connection, month: date, *, archive_digest: bytes, made_at: datetime, made_by: str
    ) -> Self:
        """Return the tombstone of a month that is still there. Sign and store it in the drop's transaction.

        Args:
            connection: a transaction in which nothing else adds rows to the month.
            month: any day of it.
            archive_digest: SHA-256 of its archive.
            made_at: aware UTC.
            made_by: who decided.
        """
        first_day, next_month = bounds_of(month)
        bounds = {"first_day": first_day, "next_month": next_month}
        runs = tuple(
            ChainRun(row.writer_id, row.first, row.last, bytes(row.prev_hash), bytes(row.row_hash))
            for row in connection.execute(_RUNS, bounds)
        )
        # What a dropped gap told of is as lost as before.
        lost: Counter[uuid.UUID] = Counter()
        for gap in connection.execute(_GAPS, bounds | {"gap": EventType.GAP.value}):
            lost[gap.producer_id] += lost_numbers(gap.outcome)[0]
        producers = tuple(
            (row.producer_id, row.numbers + lost[row.producer_id])
            for row in connection.execute(_PRODUCERS, bounds)
        )
        rows = sum(run.last - run.first + 1 for run in runs)
        return cls(first_day_of(month), rows, runs, producers, archive_digest, made_at, made_by)

    def encode(self) -> bytes:
        """Return the bytes that are signed."""
        writer = StatementWriter(_MAGIC, _VERSION if self.in_archive else _BEFORE_COPIES)
        writer.text(self.month.isoformat())
        writer.number(self.rows)
        writer.number(len(self.runs))
        for run in self.runs:
            writer.text(run.writer_id)
            writer.number(run.first)
            writer.number(run.last)
            writer.blob(run.prev_hash)
            writer.blob(run.row_hash)
        writer.number(len(self.producers))
        for producer_id, numbers in self.producers:
            writer.blob(producer_id.bytes)
            writer.number(numbers)
        writer.blob(self.archive_digest)
        writer.moment(self.made_at)
        writer.text(self.made_by)
        return writer.to_bytes()

    @classmethod
    def decode(cls, statement: bytes) -> Self:
        """Return the tombstone of a statement.

        Raises:
            ValidationError: it is none.
        """
        reader = StatementReader(statement, _MAGIC, _BEFORE_COPIES, _VERSION)
        tombstone = cls(
            month=date.fromisoformat(reader.text()),
            rows=reader.number(),
            runs=tuple(
                ChainRun(reader.text(), reader.number(), reader.number(), reader.blob(), reader.blob())
                for _ in reader.count()
            ),
            producers=tuple((uuid.UUID(bytes=reader.blob()), reader.number()) for _ in reader.count()),
            archive_digest=reader.blob(),
            made_at=reader.moment(),
            made_by=reader.text(),
            in_archive=reader.version != _BEFORE_COPIES,
        )
        reader.end()
        return tombstone


def row_of(tombstone: Tombstone, signed: Signed) -> dict[str, object]:
    """Return the row of `audit_tombstone` for `tombstone`."""
    return {
        "month": tombstone.month,
        "made_at": tombstone.made_at,
        "rows": tombstone.rows,
        "key_id": signed.key_id,
        "statement": signed.statement,
        "signature": signed.signature,
    }
