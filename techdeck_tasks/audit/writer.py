"""From sealed records to chained rows, exactly once, in one transaction a batch."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Engine,
    Integer,
    LargeBinary,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID, insert
from sqlalchemy.types import TypeEngine

from techdeck_tasks.audit.canonical import COLUMN_NAMES, AuditRecord
from techdeck_tasks.audit.chain import Head
from techdeck_tasks.audit.models import AuditDataKey, AuditEventRow, AuditWriterHead
from techdeck_tasks.audit.sealing import SealedDataKey, SealedEvent
from techdeck_tasks.clock import Clock
from techdeck_tasks.storage.database import transaction

MAX_CLOCK_SKEW = timedelta(days=1)
MAX_AGE = timedelta(days=366)
"""An event older than this cannot have waited in a spool; its id is forged or its producer's clock is off."""

_ROW_COLUMNS = (
    "occurred_at",
    "recorded_at",
    *COLUMN_NAMES,
    "content_digest",
    "writer_id",
    "writer_seq",
    "prev_hash",
    "row_hash",
)
_COPY = f"COPY audit_event ({', '.join(_ROW_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_PG_TYPES: dict[type[TypeEngine[Any]], str] = {
    DateTime: "timestamptz",
    UUID: "uuid",
    Text: "text",
    BigInteger: "int8",
    Integer: "int4",
    Boolean: "bool",
    LargeBinary: "bytea",
}
_COPY_TYPES = [_PG_TYPES[type(AuditEventRow.__table__.c[name].type)] for name in _ROW_COLUMNS]

_CLAIM_IDS = text("""
    INSERT INTO audit_event_id (occurred_at, event_id, content_digest)
    SELECT * FROM unnest(CAST(:occurred AS timestamptz[]), CAST(:ids AS uuid[]), CAST(:digests AS bytea[]))
    ON CONFLICT DO NOTHING
    RETURNING event_id
""")
_KNOWN_DIGESTS = text("""
    SELECT event_id, content_digest FROM audit_event_id
    WHERE (occurred_at, event_id) IN (
        SELECT * FROM unnest(CAST(:occurred AS timestamptz[]), CAST(:ids AS uuid[])))
""")
_READ_HEAD = text("SELECT writer_seq, row_hash FROM audit_writer_head WHERE writer_id = :writer_id")
_ADVANCE_HEAD = text("""
    UPDATE audit_writer_head SET writer_seq = :seq, row_hash = :row_hash, updated_at = :now
    WHERE writer_id = :writer_id AND writer_seq = :expected
""")
_ENSURE_PARTITION = text("SELECT techdeck_audit_ensure_partition(CAST(:month AS date))")


class HeadMovedError(Exception):
    """Another process advanced the chain of this writer id in between; the batch was rolled back."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What one batch came to.

    Attributes:
        written: rows added and committed.
        duplicates: events that were there already, byte for byte.
        refused: events that must not be written, each with the reason.
    """

    written: int
    duplicates: int
    refused: Sequence[tuple[SealedEvent, str]]


class AuditWriter:
    """Appends to the chain of one writer.

    Args:
        engine: the database; each batch is one transaction.
        writer_id: names the chain. Two processes under one id stay correct (one of them repeats its batch),
            at a cost: give every audit worker its own.
        clock: tells `recorded_at`.
    """

    def __init__(self, engine: Engine, writer_id: str, clock: Clock) -> None:
        self._engine = engine
        self._writer_id = writer_id
        self._clock = clock
        self._partitions: set[date] = set()
        self._known_keys: set[uuid.UUID] = set()

    def write(self, events: Sequence[SealedEvent]) -> WriteResult:
        """Add `events` in their order. After it returns they are committed.

        Raises:
            ServiceUnavailableError: PostgreSQL is away; nothing of the batch may be taken as written. To
                write it again is safe.
            HeadMovedError: the chain was advanced by another process, again and again.
        """
        now = self._clock.now()
        timely, refused = [], []
        for event in events:
            if now - MAX_AGE <= event.record.occurred_at <= now + MAX_CLOCK_SKEW:
                timely.append(event)
            else:
                refused.append((event, "its time is more than a year back or a day ahead of this clock"))
        for _ in range(5):
            try:
                return self._write_once(timely, refused, now)
            except HeadMovedError:
                continue
        raise HeadMovedError(f"writer id {self._writer_id!r} is in use by another audit worker; give it its own")

    def prepare_partitions(self, months_ahead: int = 2) -> None:
        """Make the partitions of this month and the next ones, so that no insert has to."""
        now = self._clock.now()
        with transaction(self._engine) as connection:
            for ahead in range(months_ahead + 1):
                years, month = divmod(now.month - 1 + ahead, 12)
                connection.execute(_ENSURE_PARTITION, {"month": date(now.year + years, month + 1, 1)})

    def _write_once(
        self, events: Sequence[SealedEvent], refused: Sequence[tuple[SealedEvent, str]], now: datetime
    ) -> WriteResult:
        batch, twisted = _distinct(events)
        if not batch:
            return WriteResult(0, 0, refused)
        keys = {event.data_key.key_id: event.data_key for event in batch}
        with transaction(self._engine) as connection:
            months = self._ensure_partitions(connection, batch)
            self._keep_data_keys(connection, keys.values(), now)
            fresh, conflicts = _claim_ids(connection, batch)
            if fresh:
                self._append(connection, [event.record for event in fresh], now)
        # Remembered only now: a rolled-back transaction takes its partitions and keys with it.
        self._partitions |= months
        self._known_keys.update(keys)
        written = len(fresh)
        conflicts = [*conflicts, *twisted]
        duplicates = len(events) - written - len(conflicts)
        reasons = [(event, "its id is on record with other content") for event in conflicts]
        return WriteResult(written, duplicates, [*refused, *reasons])

    def _ensure_partitions(self, connection: Connection, batch: Iterable[SealedEvent]) -> set[date]:
        months = {event.record.occurred_at.date().replace(day=1) for event in batch}
        for month in months - self._partitions:
            connection.execute(_ENSURE_PARTITION, {"month": month})
        return months

    def _keep_data_keys(
        self, connection: Connection, keys: Iterable[SealedDataKey], now: datetime
    ) -> None:
        rows = [
            {
                "key_id": key.key_id,
                "tenant": key.tenant,
                "recipient_id": key.recipient_id,
                "sealed_key": key.sealed_key,
                "created_at": now,
            }
            for key in keys
            if key.key_id not in self._known_keys
        ]
        if rows:
            connection.execute(insert(AuditDataKey).values(rows).on_conflict_do_nothing())

    def _append(self, connection: Connection, records: Sequence[AuditRecord], now: datetime) -> None:
        head = self._head(connection)
        expected = head.seq
        cursor = connection.connection.cursor()
        with cursor.copy(_COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for record in records:
                previous, digest = head, record.content_digest
                head = head.next(digest, now)
                values = [getattr(record, name) for name in COLUMN_NAMES]
                copy.write_row(
                    [record.occurred_at, now, *values, digest, head.writer_id, head.seq, previous.row_hash, head.row_hash]
                )
        advanced = connection.execute(
            _ADVANCE_HEAD,
            {
                "writer_id": self._writer_id,
                "seq": head.seq,
                "row_hash": head.row_hash,
                "now": now,
                "expected": expected,
            },
        )
        if advanced.rowcount != 1:
            raise HeadMovedError(self._writer_id)

    def _head(self, connection: Connection) -> Head:
        row = connection.execute(_READ_HEAD, {"writer_id": self._writer_id}).one_or_none()
        if row is not None:
            return Head(self._writer_id, row.writer_seq, bytes(row.row_hash))
        head = Head.genesis(self._writer_id)
        connection.execute(
            insert(AuditWriterHead)
            .values(writer_id=head.writer_id, writer_seq=0, row_hash=head.row_hash, updated_at=self._clock.now())
            .on_conflict_do_nothing()
        )
        return head


def _distinct(events: Sequence[SealedEvent]) -> tuple[list[SealedEvent], list[SealedEvent]]:
    """Return each event once, and those that reuse the id of another one with other content."""
    first: dict[uuid.UUID, SealedEvent] = {}
    twisted = []
    for event in events:
        known = first.setdefault(event.record.event_id, event)
        if known is not event and known.record != event.record:
            twisted.append(event)
    return list(first.values()), twisted


def _claim_ids(
    connection: Connection, batch: Sequence[SealedEvent]
) -> tuple[list[SealedEvent], list[SealedEvent]]:
    """Return the events that are new, and those whose id is taken by other content."""
    columns = {
        "occurred": [event.record.occurred_at for event in batch],
        "ids": [event.record.event_id for event in batch],
    }
    digests = [event.record.content_digest for event in batch]
    claimed = set(connection.execute(_CLAIM_IDS, columns | {"digests": digests}).scalars())
    fresh = [event for event in batch if event.record.event_id in claimed]
    if len(fresh) == len(batch):
        return fresh, []
    known = {row.event_id: bytes(row.content_digest) for row in connection.execute(_KNOWN_DIGESTS, columns)}
    conflicts = [
        event
        for event, digest in zip(batch, digests, strict=True)
        if event.record.event_id not in claimed and known[event.record.event_id] != digest
    ]
    return fresh, conflicts

