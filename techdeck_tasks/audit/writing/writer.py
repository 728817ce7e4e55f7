"""From sealed records to chained rows, exactly once, in one transaction a batch."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, Self

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from techdeck_tasks.audit.canonical import event_id_of, microseconds
from techdeck_tasks.audit.copied_row import COLUMNS, Place, pack_start
from techdeck_tasks.audit.models import AuditDataKey, AuditWriterHead
from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.sealing import SealedDataKey, SealedEvent
from techdeck_tasks.audit.writing.bulk import bulk_copy, send_rows
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.storage.database import bound, transaction

MAX_CLOCK_SKEW = timedelta(days=1)
MAX_AGE = timedelta(days=366)
"""An event older than this cannot have waited in a spool; its id is forged or its producer's clock is off."""

STUCK_AFTER = timedelta(minutes=1)
"""A batch takes a fraction of a second. One that a stopped worker has in hand must not hold up the others,
which claim the same events after a while."""

_COPY = f"COPY audit_event (writer_id, {', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"

# In the order of the ids: two writers with the same events wait for each other instead of deadlocking.
# What comes back are the ids that were there already, mostly none.
_CLAIM_IDS = text("""
    WITH claimed AS (
        INSERT INTO audit_event_id (occurred_at, event_id, content_digest)
        SELECT timestamptz 'epoch' + ms * interval '1 millisecond', event_id, content_digest
        FROM unnest(CAST(:times AS bigint[]), CAST(:ids AS uuid[]), CAST(:digests AS bytea[]))
            AS wanted (ms, event_id, content_digest)
        ORDER BY event_id
        ON CONFLICT DO NOTHING
        RETURNING event_id
    )
    SELECT event_id FROM unnest(CAST(:ids AS uuid[])) AS wanted (event_id)
    WHERE event_id NOT IN (SELECT event_id FROM claimed)
""")
_KNOWN_DIGESTS = text("""
    SELECT event_id, content_digest FROM audit_event_id
    WHERE (occurred_at, event_id) IN (
        SELECT timestamptz 'epoch' + ms * interval '1 millisecond', event_id
        FROM unnest(CAST(:times AS bigint[]), CAST(:ids AS uuid[])) AS claimed (ms, event_id))
""")
# Locked until the commit: another process under this writer id waits, and goes on from the new head.
_LOCK_HEAD = text("""
    SELECT writer_seq, row_hash FROM audit_writer_head WHERE writer_id = :writer_id FOR UPDATE
""")
_ADVANCE_HEAD = text("""
    UPDATE audit_writer_head SET writer_seq = :seq, row_hash = :row_hash, updated_at = :now
    WHERE writer_id = :writer_id
""")
_EPOCH, _DAY_MS = date(1970, 1, 1), 86_400_000
_ENSURE_PARTITION = text("SELECT techdeck_audit_ensure_partition(CAST(:month AS date))")


class Candidate(NamedTuple):
    """An event that may become a row, with what is computed of it once, whenever there is time for it."""

    event: SealedEvent
    event_id: bytes
    time_ms: int
    digest: bytes

    @classmethod
    def of(cls, event: SealedEvent) -> Self:
        """Return the candidate of `event`."""
        event_id = event_id_of(event.content)
        return cls(event, event_id, int.from_bytes(event_id[:6]), event.content_digest)


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
        stuck_after: PostgreSQL ends a batch that stands still for so long.
    """

    def __init__(
        self, engine: Engine, writer_id: str, clock: Clock, stuck_after: timedelta = STUCK_AFTER
    ) -> None:
        self._engine = engine
        self._stuck_after = stuck_after
        self._writer_id = writer_id
        self._clock = clock
        self._partitions: set[date] = set()
        self._known_keys: set[uuid.UUID] = set()

    def write(
        self, events: Iterable[SealedEvent], meanwhile: Callable[[], None] | None = None
    ) -> WriteResult:
        """Add `events` as `write_candidates` does."""
        return self.write_candidates(map(Candidate.of, events), meanwhile)

    def write_candidates(
        self, candidates: Iterable[Candidate], meanwhile: Callable[[], None] | None = None
    ) -> WriteResult:
        """Add the candidates in their order. After it returns they are committed.

        Args:
            candidates: what to add.
            meanwhile: other work, done once while PostgreSQL takes rows in, if it has any to take in. Its
                errors pass through; nothing of the batch is written then.

        Raises:
            ServiceUnavailableError: PostgreSQL is away; nothing of the batch may be taken as written. To
                write it again is safe.
            DBAPIError: PostgreSQL refuses something in the batch; nothing of it was written.
        """
        now = self._clock.now()
        earliest_ms, latest_ms = _ms(now - MAX_AGE), _ms(now + MAX_CLOCK_SKEW)
        timely: list[Candidate] = []
        refused: list[tuple[SealedEvent, str]] = []
        for item in candidates:
            if earliest_ms <= item.time_ms <= latest_ms:
                timely.append(item)
            else:
                refused.append((item.event, "its time is more than a year back or a day ahead of this clock"))
        if not timely:
            return WriteResult(0, 0, refused)
        try:
            fresh, on_record = self._write(timely, now, meanwhile)
        except DBAPIError:
            # What is remembered may have been dropped since: a partition by retention, say.
            self._partitions.clear()
            self._known_keys.clear()
            raise
        twisted = [item.event for item in timely if on_record[item.event_id] != item.digest]
        refused += [(event, "its id is on record with other content") for event in twisted]
        return WriteResult(fresh, len(timely) - fresh - len(twisted), refused)

    def prepare_partitions(self, months_ahead: int = 2) -> None:
        """Make the partitions of this month and the next ones, so that no insert has to."""
        now = self._clock.now()
        with transaction(self._engine) as connection:
            for ahead in range(months_ahead + 1):
                years, month = divmod(now.month - 1 + ahead, 12)
                connection.execute(_ENSURE_PARTITION, {"month": date(now.year + years, month + 1, 1)})

    def _write(
        self, items: Sequence[Candidate], now: datetime, meanwhile: Callable[[], None] | None
    ) -> tuple[int, dict[bytes, bytes]]:
        """Return how many rows were added, and the digest on record of every id."""
        first: dict[bytes, Candidate] = {}
        for item in items:
            first.setdefault(item.event_id, item)
        with transaction(self._engine) as connection:
            bound(connection, self._stuck_after)
            months = self._ensure_partitions(connection, items)
            known, on_record = _claim_ids(connection, first)
            fresh = [item for event_id, item in first.items() if event_id not in known]
            keys = {item.event.data_key.key_id: item.event.data_key for item in fresh}
            self._keep_data_keys(connection, keys.values(), now)
            if fresh:
                self._append(connection, fresh, now, meanwhile)
        # Remembered only now: a rolled-back transaction takes its partitions and keys with it.
        self._partitions |= months
        self._known_keys.update(keys)
        return len(fresh), on_record

    def _ensure_partitions(self, connection: Connection, items: Iterable[Candidate]) -> set[date]:
        days = {item.time_ms // _DAY_MS for item in items}
        months = {(_EPOCH + timedelta(days=day)).replace(day=1) for day in days}
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

    def _append(
        self,
        connection: Connection,
        items: Iterable[Candidate],
        now: datetime,
        meanwhile: Callable[[], None] | None,
    ) -> None:
        head = self._lock_head(connection, now)
        recorded_us, start = microseconds(now), pack_start(self._writer_id)

        def rows() -> Iterator[bytes]:
            nonlocal head
            for event, _, time_ms, digest in items:
                previous, head = head, head.next(digest, now)
                times = (time_ms * 1000, recorded_us)
                place = Place(*times, head.seq, digest, previous.row_hash, head.row_hash)
                yield b"".join((start, place.pack(), event.content))

        with bulk_copy(connection, _COPY, meanwhile) as copy:
            send_rows(copy, rows())
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
    connection: Connection, batch: Mapping[bytes, Candidate]
) -> tuple[set[bytes], dict[bytes, bytes]]:
    """Return the ids that were there already, and the digest on record of every id, the new ones included."""
    # Array literals, written here: the driver takes longer over lists than PostgreSQL over the statement.
    columns = {"times": [item.time_ms for item in batch.values()], "ids": _literal("", batch)}
    on_record = {event_id: item.digest for event_id, item in batch.items()}
    parameters = columns | {"digests": _literal(r"\\x", on_record.values())}
    known = {event_id.bytes for event_id in connection.execute(_CLAIM_IDS, parameters).scalars()}
    if known:
        digests = {
            row.event_id.bytes: bytes(row.content_digest)
            for row in connection.execute(_KNOWN_DIGESTS, columns)
        }
        if not known <= digests.keys():
            # Taken for duplicates, they would be acknowledged, and nowhere.
            raise ServiceUnavailableError(
                "audit_event_id keeps no ids: somebody put a trigger on it; run 'techdeck audit verify'",
                service_name="postgresql",
            )
        on_record |= digests
    return known, on_record


def _literal(prefix: str, values: Iterable[bytes]) -> str:
    return "{" + ",".join(prefix + value.hex() for value in values) + "}"


def _ms(moment: datetime) -> int:
    return microseconds(moment) // 1000
