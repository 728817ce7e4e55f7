"""Reading the audit log. Every read is itself on record before any plaintext is returned."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.engine import Row

from techdeck_tasks.audit.canonical import COLUMN_NAMES, AuditRecord
from techdeck_tasks.audit.event import AuditEvent, AuditTrail, EventType, time_of
from techdeck_tasks.audit.models import AuditDataKey, AuditEventRow
from techdeck_tasks.audit.reading.entry import AuditEntry
from techdeck_tasks.audit.reading.search import AuditFilter, BlindIndexes, Cursor, search_statement
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.sealing import Opener, SealedDataKey
from techdeck_tasks.errors import EncryptionError, Severity, ValidationError
from techdeck_tasks.storage.database import transaction

MAX_LIMIT = 10_000
EXPORT_BATCH = 1000
"""Rows an export fetches and decrypts at a time: its memory does not grow with the log."""

_EVERYTHING = AuditFilter()
_values_of: Callable[[Row[Any]], tuple[Any, ...]] = attrgetter(*COLUMN_NAMES)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, newest first, and the token that the next page is asked for with; None after the last."""

    entries: list[AuditEntry]
    next_cursor: str | None


class AuditReader:
    """Searches the log for one named reader.

    Args:
        engine: the database.
        trail: where the read itself is recorded.
        opener: holds the private key; None shows clear columns only.
        reader: who reads; recorded.
        blind_indexes: finds persons; None refuses to search for them.
    """

    def __init__(
        self,
        engine: Engine,
        trail: AuditTrail,
        opener: Opener | None,
        reader: str,
        blind_indexes: BlindIndexes | None = None,
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._opener = opener
        self._reader = reader
        self._blind_indexes = blind_indexes

    def search(
        self, wanted: AuditFilter = _EVERYTHING, limit: int = 100, offset: int = 0
    ) -> list[AuditEntry]:
        """Return the newest matching entries, newest first.

        A large offset costs what it leaves out; `page` goes on from a place instead.

        Raises:
            ValidationError: `limit` is not 1 to 10,000, or `offset` is negative.
            EncryptionError: not one of the documents found opens under the reader's private key.
            AuditUnavailableError: the read could not be recorded; nothing is returned.
            ServiceUnavailableError: PostgreSQL is away.
        """
        _check_limit(limit)
        if offset < 0:
            raise ValidationError(f"audit search takes an offset of 0 or more; got {offset}", field="offset")
        statement = search_statement(wanted, self._blind_indexes).limit(limit).offset(offset)
        self._record_read("search", wanted, limit=limit, offset=offset)
        with transaction(self._engine) as connection:
            rows = connection.execute(statement).all()
        return self._entries(rows, wanted)

    def page(self, wanted: AuditFilter = _EVERYTHING, limit: int = 100, cursor: str | None = None) -> Page:
        """Return the page after `cursor`, at the same cost wherever it is in the log.

        New entries shift no page: each entry that was there at the first page is on exactly one.

        Raises:
            ValidationError: `limit` is not 1 to 10,000, or `cursor` is not of this search.
            EncryptionError, AuditUnavailableError, ServiceUnavailableError: as `search`.
        """
        _check_limit(limit)
        after = None if cursor is None else Cursor.decode(cursor, wanted)
        # One more than asked for tells whether there is another page.
        statement = search_statement(wanted, self._blind_indexes, after).limit(limit + 1)
        self._record_read("search", wanted, limit=limit, cursor=cursor)
        with transaction(self._engine) as connection:
            rows = connection.execute(statement).all()
        more = len(rows) > limit
        rows = rows[:limit]
        last = Cursor.after(rows[-1].event_id, wanted).encode() if more else None
        return Page(self._entries(rows, wanted), last)

    def get(self, event_id: str) -> AuditEntry:
        """Return one entry by its id.

        Raises:
            ValidationError: there is none.
            EncryptionError, AuditUnavailableError, ServiceUnavailableError: as `search`.
        """
        try:
            wanted = uuid.UUID(event_id)
            moment = time_of(wanted)
        except (ValueError, ValidationError):
            raise _unknown(event_id) from None
        self._record_read("show", _EVERYTHING, event_id=event_id)
        statement = search_statement(_EVERYTHING, None).where(
            AuditEventRow.occurred_at == moment, AuditEventRow.event_id == wanted
        )
        with transaction(self._engine) as connection:
            rows = connection.execute(statement).all()
        if not rows:
            raise _unknown(event_id)
        return self._entries(rows, _EVERYTHING)[0]

    @contextmanager
    def export(self, wanted: AuditFilter = _EVERYTHING) -> Iterator[Iterator[AuditEntry]]:
        """Yield every matching entry, newest first, in constant memory and from one snapshot.

        Raises:
            EncryptionError, AuditUnavailableError, ServiceUnavailableError: as `search`.
        """
        statement = search_statement(wanted, self._blind_indexes)
        self._record_read("export", wanted)
        with transaction(self._engine) as connection:
            found = connection.execution_options(yield_per=EXPORT_BATCH).execute(statement)
            yield (entry for rows in found.partitions() for entry in self._entries(rows, wanted))

    @contextmanager
    def archived(self, archive: Archive, month: date) -> Iterator[Iterator[AuditEntry]]:
        """Yield every entry of a month that retention has archived, in the order of the chains.

        Raises:
            ValidationError: the archive has no such month.
            AuditUnavailableError, ServiceUnavailableError: as `search`.
            OSError: the archive cannot be read.
        """
        self._record_read("read_archive", _EVERYTHING, month=f"{month:%Y-%m}")
        with transaction(self._engine) as connection:
            # Rows of a month share few keys.
            key_of = lru_cache(maxsize=1024)(partial(_data_key, connection))
            yield (
                self._opened(row.record, row.recorded_at, key_of(row.record.key_id))
                for row in archive.rows(month)
            )

    def get_audit_logs(
        self, filters: Mapping[str, Any] | None = None, limit: int = 100, offset: int = 0
    ) -> list[dict[str, Any]]:
        """Return matching entries, newest first, each under the specification's keys.

        Args:
            filters: by the names of `AuditFilter`, times as text or `datetime`; `timestamp_start` and
                `timestamp_end` are understood.
            limit: 1 to 10,000.
            offset: how many of the newest to leave out.

        Raises:
            ValidationError: a filter is unknown or malformed, or as `search`.
            EncryptionError, AuditUnavailableError, ServiceUnavailableError: as `search`.
        """
        wanted = AuditFilter.from_mapping(filters or {})
        return [entry.to_log() for entry in self.search(wanted, limit, offset)]

    def _record_read(self, operation: str, wanted: AuditFilter, **facts: Any) -> None:
        self._trail.record(
            AuditEvent(
                event_type=EventType.AUDIT_READ,
                severity=Severity.LOW,
                service="audit",
                operation=operation,
                user_id=self._reader,
                subject_id=wanted.subject,
                document={"reader": self._reader, "filter": wanted.used, **facts},
            )
        )

    def _entries(self, rows: Sequence[Row[Any]], wanted: AuditFilter) -> list[AuditEntry]:
        entries = [self._entry(row) for row in rows]
        problem = next((entry.problem for entry in entries if entry.problem), None)
        if problem and not any(entry.document for entry in entries):
            # One bad row must not hide the others; nothing but bad rows is a wrong key.
            raise EncryptionError(problem)
        return [entry for entry in entries if wanted.admits(entry.document)]

    def _entry(self, row: Row[Any]) -> AuditEntry:
        return self._opened(record_of(row), row.recorded_at, row)

    def _opened(self, record: AuditRecord, recorded_at: datetime, key: Row[Any] | None) -> AuditEntry:
        if key is None or self._opener is None or key.sealed_key is None or key.erased_at is not None:
            return AuditEntry(record, recorded_at, None, None if key is None else key.erased_at)
        sealed = SealedDataKey(record.key_id, record.tenant, key.recipient_id, bytes(key.sealed_key))
        try:
            return AuditEntry(record, recorded_at, self._opener.open(record, sealed))
        except EncryptionError as error:
            return AuditEntry(record, recorded_at, None, problem=error.message)


def record_of(row: Row[Any]) -> AuditRecord:
    """Return the record of a row of `audit_event`."""
    return AuditRecord(**dict(zip(COLUMN_NAMES, _values_of(row), strict=True)))


def _data_key(connection: Connection, key_id: uuid.UUID) -> Row[Any] | None:
    return connection.execute(
        select(AuditDataKey.__table__).where(AuditDataKey.key_id == key_id)
    ).one_or_none()


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise ValidationError(f"audit search takes a limit of 1 to {MAX_LIMIT}; got {limit}", field="limit")


def _unknown(event_id: str) -> ValidationError:
    return ValidationError(
        f"there is no audit entry {event_id!r}; 'techdeck audit list --json' shows each entry's event_id",
        field="event_id",
    )
