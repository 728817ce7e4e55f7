"""What to look for in the audit log: filters, positions in the result, and the statement they come to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time
from typing import Any, Self

from sqlalchemy import Select, and_, select, tuple_

from techdeck_tasks.audit.event import EventType, time_of
from techdeck_tasks.audit.models import AuditDataKey, AuditEventRow
from techdeck_tasks.audit.period import check_period
from techdeck_tasks.audit.sealing import one_spelling
from techdeck_tasks.errors import Severity, ValidationError

BlindIndexes = Callable[[str, str], Sequence[bytes]]
"""Gives the fingerprints that a person ("user" or "subject", and the id) may have, one for each key."""

_Read = Callable[[str, Any], Any]
"""Reads a value of the filter of that name."""

_ALIASES = {"timestamp_start": "since", "timestamp_end": "until"}
"""The specification's names."""

_FINGERPRINT_BYTES = 8
_CURSOR_BYTES = 16 + _FINGERPRINT_BYTES
_PERSONS = {"user": AuditEventRow.user_index, "subject": AuditEventRow.subject_index}
_TRUTHS = {"true": True, "false": False, "yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows are wanted; what is None does not restrict. Times are aware; `until` is exclusive.

    `user` (who acted) and `subject` (whom the data is about) are found by their blind index and compared
    with the decrypted value.

    Raises:
        ValidationError: a time is not aware, or a severity or event type does not exist.
    """

    since: datetime | None = None
    until: datetime | None = None
    event_type: str | None = None
    severity: str | None = None
    error_code: str | None = None
    error_id: str | None = None
    service: str | None = None
    operation: str | None = None
    outcome: str | None = None
    task_name: str | None = None
    task_id: str | None = None
    pipeline_id: str | None = None
    stage: str | None = None
    hipaa_related: bool | None = None
    user: str | None = field(default=None, repr=False)
    subject: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_period("audit search", self.since, self.until)
        _check_known("severity", self.severity, Severity)
        _check_known("event_type", self.event_type, EventType)

    @classmethod
    def from_mapping(cls, filters: Mapping[str, Any]) -> Self:
        """Return the filter that `filters` spell, with times as text or `datetime`.

        `timestamp_start` and `timestamp_end` are other names of `since` and `until`.

        Raises:
            ValidationError: a name or a value is none that a filter takes.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {}
        for given, value in filters.items():
            name = _ALIASES.get(given, given)
            if name not in known:
                choice = ", ".join(sorted(known | _ALIASES.keys()))
                raise ValidationError(f"audit search knows no filter {given!r}; use {choice}", field=given)
            if name in values:
                raise ValidationError(f"audit search was given {name!r} twice; leave one out", field=given)
            if value is not None:
                read: _Read = _READERS.get(name, _read_text)
                values[name] = read(given, value)
        return cls(**values)

    @property
    def used(self) -> dict[str, Any]:
        """What restricts, JSON-safe."""
        return {
            field.name: value.isoformat() if isinstance(value, datetime) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }

    def admits(self, document: Mapping[str, Any] | None) -> bool:
        """Tell whether a row found by blind index names the same persons in its document, if that opens."""
        if document is None:
            return True
        wanted = {"user_id": self.user, "subject_id": self.subject}
        return all(
            value is None or one_spelling(str(document.get(name, value))) == one_spelling(value)
            for name, value in wanted.items()
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after one row of one search; what a page's reader gives back for the next page."""

    event_id: uuid.UUID
    fingerprint: bytes = field(repr=False)

    def encode(self) -> str:
        """Return the cursor as a token of 32 characters, fit for a URL."""
        return base64.urlsafe_b64encode(self.event_id.bytes + self.fingerprint).decode()

    @classmethod
    def after(cls, event_id: uuid.UUID, wanted: AuditFilter) -> Self:
        """Return the place after the row `event_id` of the search for `wanted`."""
        return cls(event_id, _fingerprint(wanted))

    @classmethod
    def decode(cls, token: str, wanted: AuditFilter) -> Self:
        """Return the place that `token` names.

        Raises:
            ValidationError: it is none of ours, or of a search with other filters.
        """
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
            if len(raw) != _CURSOR_BYTES:
                raise ValueError("length")  # noqa: TRY301 - one answer to every malformed token
            cursor = cls(uuid.UUID(bytes=raw[:16]), raw[16:])
            time_of(cursor.event_id)
        except (ValueError, binascii.Error, ValidationError):
            raise ValidationError(
                "the cursor is malformed; pass on 'next_cursor' of the page before as it is, "
                "or start without one",
                field="cursor",
            ) from None
        if cursor.fingerprint != _fingerprint(wanted):
            raise ValidationError(
                "the cursor belongs to a search with other filters; repeat those, or start without a cursor",
                field="cursor",
            )
        return cursor


def search_statement(
    wanted: AuditFilter, blind_indexes: BlindIndexes | None, after: Cursor | None = None
) -> Select[Any]:
    """Return the statement that finds what is `wanted`, newest first, each row with its sealed data key.

    Raises:
        ValidationError: a person is wanted and this reader has no key of the blind indexes.
    """
    table = AuditEventRow
    conditions = [
        getattr(table, field.name) == value
        for field in fields(AuditFilter)
        if field.name not in {"since", "until", *_PERSONS}
        and (value := getattr(wanted, field.name)) is not None
    ]
    if wanted.since is not None:
        conditions.append(table.occurred_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(table.occurred_at < wanted.until)
    for name, column in _PERSONS.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(column.in_(_indexes_of(blind_indexes, name, value)))
    if after is not None:
        moment = time_of(after.event_id)
        place = tuple_(table.occurred_at, table.event_id) < tuple_(moment, after.event_id)
        # The first half says nothing new, but partitions are left out by a plain comparison only.
        conditions.append(and_(table.occurred_at <= moment, place))
    return (
        select(table.__table__, AuditDataKey.recipient_id, AuditDataKey.sealed_key, AuditDataKey.erased_at)
        .join(AuditDataKey, AuditDataKey.key_id == table.key_id, isouter=True)
        .where(*conditions)
        .order_by(table.occurred_at.desc(), table.event_id.desc())
    )


def read_time(name: str, value: Any) -> datetime:
    """Return the moment that `value` spells: ISO 8601 with a time zone; a bare date is its midnight in UTC.

    Raises:
        ValidationError: it is neither.
    """
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and "T" not in value and " " not in value:
            value = date.fromisoformat(value)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValidationError(
            f"{name!r} must be a date, or a time with its time zone, such as 2026-01-31 or "
            "2026-01-31T08:00:00Z",
            field=name,
        )
    return moment


def _read_truth(name: str, value: Any) -> bool:
    truth = value if isinstance(value, bool) else _TRUTHS.get(str(value).lower())
    if truth is None:
        raise ValidationError(f"audit search takes true or false as {name!r}", field=name)
    return truth


def is_storable(text: str) -> bool:
    """Tell whether a stored text can be `text`: PostgreSQL's holds no NUL, and UTF-8 no lone surrogate."""
    return "\0" not in text and text.encode("utf-8", "replace").decode() == text


def _read_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValidationError(f"audit search takes text as {name!r}", field=name)
    if not is_storable(value):
        raise ValidationError(
            f"audit search takes text without NUL and lone surrogates as {name!r}", field=name
        )
    return value


_READERS: Mapping[str, _Read] = {
    "since": read_time,
    "until": read_time,
    "hipaa_related": _read_truth,
}


def _check_known(name: str, value: str | None, known: type[Severity | EventType]) -> None:
    if value is not None and value not in set(known):
        raise ValidationError(
            f"audit search knows no {name} {str(value)!r}; use {', '.join(known)}", field=name
        )


def _indexes_of(blind_indexes: BlindIndexes | None, name: str, value: str) -> Sequence[bytes]:
    if blind_indexes is None:
        raise ValidationError(
            f"searching by {name!r} needs the keys of the blind indexes; point TECHDECK_KEYS_DIR at them",
            field=name,
        )
    return blind_indexes(name, value)


def _fingerprint(wanted: AuditFilter) -> bytes:
    return hashlib.sha256(json.dumps(wanted.used, sort_keys=True).encode()).digest()[:_FINGERPRINT_BYTES]
