"""Reading the audit log. Every read is itself on record before any plaintext is returned."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.engine import Row

from techdeck_tasks.audit.canonical import COLUMN_NAMES, AuditRecord
from techdeck_tasks.audit.event import AuditEvent, AuditTrail, EventType
from techdeck_tasks.audit.models import AuditDataKey, AuditEventRow
from techdeck_tasks.audit.sealing import Opener, SealedDataKey
from techdeck_tasks.errors import EncryptionError, Severity, ValidationError
from techdeck_tasks.storage.database import transaction

MAX_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows are wanted; what is None does not restrict. Times are aware; `until` is exclusive."""

    since: datetime | None = None
    until: datetime | None = None
    event_type: str | None = None
    severity: str | None = None
    error_code: str | None = None
    error_id: str | None = None
    service: str | None = None
    operation: str | None = None
    task_id: str | None = None
    pipeline_id: str | None = None
    stage: str | None = None
    hipaa_related: bool | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row as its reader sees it.

    Attributes:
        document: None for a reader without the private key, after shredding, and where there is a problem.
        problem: why the document does not open under the reader's key.
    """

    record: AuditRecord
    recorded_at: datetime
    document: dict[str, Any] | None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON-safe data, without the ciphertext and the blind indexes."""
        hidden = {"sealed_document", "user_index", "subject_index"}
        clear = {
            field.name: _plain(getattr(self.record, field.name))
            for field in fields(AuditRecord)
            if field.name not in hidden
        }
        times = {
            "occurred_at": self.record.occurred_at.isoformat(),
            "recorded_at": self.recorded_at.isoformat(),
        }
        return {**times, **clear, "document": self.document, "problem": self.problem}


class AuditReader:
    """Searches the log for one named reader.

    Args:
        engine: the database.
        trail: where the read itself is recorded.
        opener: holds the private key; None shows clear columns only.
        reader: who reads; recorded.
    """

    def __init__(self, engine: Engine, trail: AuditTrail, opener: Opener | None, reader: str) -> None:
        self._engine = engine
        self._trail = trail
        self._opener = opener
        self._reader = reader

    def search(
        self, wanted: AuditFilter | None = None, limit: int = 100, offset: int = 0
    ) -> list[AuditEntry]:
        """Return the newest matching entries, newest first.

        Raises:
            ValidationError: `limit` is not 1 to 10,000, `offset` is negative, or a time is not aware.
            EncryptionError: not one of the documents found opens under the reader's private key.
            AuditUnavailableError: the read could not be recorded; nothing is returned.
            ServiceUnavailableError: PostgreSQL is away.
        """
        if not 1 <= limit <= MAX_LIMIT or offset < 0:
            raise ValidationError(
                f"audit search takes a limit of 1 to {MAX_LIMIT} and an offset of 0 or more; "
                f"got {limit} and {offset}",
                field="limit",
            )
        wanted = wanted or AuditFilter()
        if any(moment is not None and moment.tzinfo is None for moment in (wanted.since, wanted.until)):
            raise ValidationError("audit search takes aware times; say which time zone", field="since, until")
        self._record_read(wanted, limit, offset)
        conditions = [
            getattr(AuditEventRow, field.name) == value
            for field in fields(AuditFilter)
            if (value := getattr(wanted, field.name)) is not None and field.name not in ("since", "until")
        ]
        if wanted.since is not None:
            conditions.append(AuditEventRow.occurred_at >= wanted.since)
        if wanted.until is not None:
            conditions.append(AuditEventRow.occurred_at < wanted.until)
        statement = (
            select(AuditEventRow.__table__, AuditDataKey.recipient_id, AuditDataKey.sealed_key)
            .join(AuditDataKey, AuditDataKey.key_id == AuditEventRow.key_id, isouter=True)
            .where(*conditions)
            .order_by(AuditEventRow.occurred_at.desc(), AuditEventRow.event_id.desc())
            .limit(limit)
            .offset(offset)
        )
        with transaction(self._engine) as connection:
            rows = connection.execute(statement).all()
        entries = [self._entry(row) for row in rows]
        problem = next((entry.problem for entry in entries if entry.problem), None)
        if problem and not any(entry.document for entry in entries):
            # One bad row must not hide the others; nothing but bad rows is a wrong key.
            raise EncryptionError(problem)
        return entries

    def _record_read(self, wanted: AuditFilter, limit: int, offset: int) -> None:
        used = {
            field.name: _plain(value)
            for field in fields(AuditFilter)
            if (value := getattr(wanted, field.name)) is not None
        }
        self._trail.record(
            AuditEvent(
                event_type=EventType.AUDIT_READ,
                severity=Severity.LOW,
                service="audit",
                operation="search",
                user_id=self._reader,
                document={"reader": self._reader, "filter": used, "limit": limit, "offset": offset},
            )
        )

    def _entry(self, row: Row[Any]) -> AuditEntry:
        record = record_of(row)
        if self._opener is None or row.sealed_key is None:
            return AuditEntry(record, row.recorded_at, None)
        key = SealedDataKey(record.key_id, record.tenant, row.recipient_id, bytes(row.sealed_key))
        try:
            return AuditEntry(record, row.recorded_at, self._opener.open(record, key))
        except EncryptionError as error:
            return AuditEntry(record, row.recorded_at, None, error.message)


def record_of(row: Row[Any]) -> AuditRecord:
    """Return the record of a row of `audit_event`."""
    return AuditRecord(**{name: getattr(row, name) for name in COLUMN_NAMES})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value
