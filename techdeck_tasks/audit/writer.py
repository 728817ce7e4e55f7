"""From sealed records to chained rows, exactly once, in one transaction a batch."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
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
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from techdeck_tasks.audit.bulk import bulk_copy
from techdeck_tasks.audit.canonical import COLUMN_NAMES
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

# In the order of the ids: two writers with the same events wait for each other instead of deadlocking.
_CLAIM_IDS = text("""
    INSERT INTO audit_event_id (occurred_at, event_id, content_digest)
    SELECT * FROM unnest(CAST(:occurred AS timestamptz[]), CAST(:ids AS uuid[]), CAST(:digests AS bytea[]))
        AS claimed (occurred_at, event_id, content_digest)
    ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
""")
_KNOWN_DIGESTS = text("""
    SELECT event_id, content_digest FROM audit_event_id
    WHERE (occurred_at, event_id) IN (
        SELECT * FROM unnest(CAST(:occurred AS timestamptz[]), CAST(:ids AS uuid[])))
""")
# Locked until the commit: another process under this writer id waits, and goes on from the new head.
_LOCK_HEAD = text("""
    SELECT writer_seq, row_hash FROM audit_writer_head WHERE writer_id = :writer_id FOR UPDATE
""")
_ADVANCE_HEAD = text("""
    UPDATE audit_writer_head SET writer_seq = :seq, row_hash = :row_hash, updated_at = :now
    WHERE writer_id = :writer_id
""")
_ENSURE_PARTITION = text("SELECT techdeck_audit_ensure_partition(CAST(:month AS date))")


_Digested = tuple[SealedEvent, bytes]
"""An event and its content digest."""


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
        writer_id: names the chain. Two processes under one id stay correct, but wait for each other: give
            every audit worker its own.
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
            DBAPIError: PostgreSQL refuses something in the batch; nothing of it was written.
        """
        now = self._clock.now()
        timely, refused = [], []
        for event in events:
            if now - MAX_AGE <= event.record.occurred_at <= now + MAX_CLOCK_SKEW:
                timely.append(event)
            else:
                refused.append((event, "its time is more than a year back or a day ahead of this clock"))
        try:
            return self._write(timely, refused, now)
        except DBAPIError:
            # What is remembered may have been dropped since: a partition by retention, say.
            self._partitions.clear()
            self._known_keys.clear()
            raise

    def prepare_partitions(self, months_ahead: int = 2) -> None:
        """Make the partitions of this month and the next ones, so that no insert has to."""
        now = self._clock.now()
        with transaction(self._engine) as connection:
            for ahead in range(months_ahead + 1):
                years, month = divmod(now.month - 1 + ahead, 12)
                connection.execute(_ENSURE_PARTITION, {"month": date(now.year + years, month + 1, 1)})

    def _write(
        self, events: Sequence[SealedEvent], refused: Sequence[tuple[SealedEvent, str]], now: datetime
    ) -> WriteResult:
        if not events:
            return WriteResult(0, 0, refused)
        digests = [event.content_digest for event in events]
        first: dict[uuid.UUID, _Digested] = {}
        for pair in zip(events, digests, strict=True):
            first.setdefault(pair[0].record.event_id, pair)
        with transaction(self._engine) as connection:
            months = self._ensure_partitions(connection, events)
            claimed, on_record = _claim_ids(connection, first)
            fresh = [pair for event_id, pair in first.items() if event_id in claimed]
            keys = {event.data_key.key_id: event.data_key for event, _ in fresh}
            self._keep_data_keys(connection, keys.values(), now)
            if fresh:
                self._append(connection, fresh, now)
        # Remembered only now: a rolled-back transaction takes its partitions and keys with it.
        self._partitions |= months
        self._known_keys.update(keys)
        twisted = [
            (event, "its id is on record with other content")
            for event, digest in zip(events, digests, strict=True)
            if on_record[event.record.event_id] != digest
        ]
        duplicates = len(events) - len(fresh) - len(twisted)
        return WriteResult(len(fresh), duplicates, [*refused, *twisted])

    def _ensure_partitions(self, connection: Connection, batch: Iterable[SealedEvent]) -> set[date]:
        months = {event.record.occurred_at.date().replace(day=1) for event in batch}
        for month in sorted(months - self._partitions):
            connection.execute(_ENSURE_PARTITION, {"month": month})
        return months

    def _keep_data_keys(self, connection: Connection, keys: Iterable[SealedDataKey], now: datetime) -> None:
        rows = [
            {
                "key_id": key.key_id,
                "tenant": key.tenant,
                "recipient_id": key.recipient_id,
                "sealed_key": key.sealed_key,
                "created_at": now,
            }
            for key in sorted(keys, key=lambda key: key.key_id)
            if key.key_id not in self._known_keys
        ]
        if rows:
            connection.execute(insert(AuditDataKey).values(rows).on_conflict_do_nothing())

    def _append(self, connection: Connection, events: Iterable[_Digested], now: datetime) -> None:
        head = self._lock_head(connection, now)
        with bulk_copy(connection, _COPY) as copy:
            copy.set_types(_COPY_TYPES)
            for event, digest in events:
                record = event.record
                values = [getattr(record, name) for name in COLUMN_NAMES]
                previous, head = head, head.next(digest, now)
                place = (digest, head.writer_id, head.seq, previous.row_hash, head.row_hash)
                copy.write_row((record.occurred_at, now, *values, *place))
        advanced = {"writer_id": head.writer_id, "seq": head.seq, "row_hash": head.row_hash, "now": now}
        connection.execute(_ADVANCE_HEAD, advanced)

    def _lock_head(self, connection: Connection, now: datetime) -> Head:
        row = connection.execute(_LOCK_HEAD, {"writer_id": self._writer_id}).one_or_none()
        if row is None:
            first = Head.genesis(self._writer_id)
            connection.execute(
                insert(AuditWriterHead)
                .values(writer_id=first.writer_id, writer_seq=0, row_hash=first.row_hash, updated_at=now)
                .on_conflict_do_nothing()
            )
            row = connection.execute(_LOCK_HEAD, {"writer_id": self._writer_id}).one()
        return Head(self._writer_id, row.writer_seq, bytes(row.row_hash))


def _claim_ids(
    connection: Connection, batch: Mapping[uuid.UUID, _Digested]
) -> tuple[set[uuid.UUID], dict[uuid.UUID, bytes]]:
    """Return the ids that are new, and the digest on record of every id, the new ones included."""
    columns = {
        "occurred": [event.record.occurred_at for event, _ in batch.values()],
        "ids": list(batch),
    }
    on_record = {event_id: digest for event_id, (_, digest) in batch.items()}
    parameters = columns | {"digests": list(on_record.values())}
    claimed = set(connection.execute(_CLAIM_IDS, parameters).scalars())
    if len(claimed) < len(batch):
        known = connection.execute(_KNOWN_DIGESTS, columns)
        on_record |= {row.event_id: bytes(row.content_digest) for row in known}
    return claimed, on_record
