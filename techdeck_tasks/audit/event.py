"""One audit event as its producer knows it, before it is sealed."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from techdeck_tasks.errors import RetryRule, Severity, TechDeckError, ValidationError
from techdeck_tasks.errors.base import Message


class EventType(StrEnum):
    """What kind of thing is on record."""

    ERROR_HANDLING = "error_handling"
    SECURITY_INCIDENT = "security_incident"
    COMPLIANCE_NOTICE = "compliance_notice"
    AUDIT_READ = "audit_read"
    OPERATOR_ACTION = "operator_action"
    BREAKER_TRANSITION = "breaker_transition"
    ALERT = "alert"
    GAP = "gap"
    """Events that could not be kept; the document counts them."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION_AND_VARIANT = (7, 0b10)
_LATEST = ((datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)).to_bytes(6)
_NS_PER_MS = 1_000_000
_RANDOM_BITS = 62


def new_event_id(time_ns: int | None = None, random: int | None = None) -> uuid.UUID:
    """Return a fresh UUIDv7 (RFC 9562, method 3): 48 bits of ms, 12 bits of its fraction, 62 random bits.

    Not a counter that runs ahead of the clock in a burst: the row's time is read from here.

    Args:
        time_ns: the moment, in ns since 1970; default: now.
        random: the random bits; given where two reports of one event must be told to be the same.
    """
    ms, rest_ns = divmod(time.time_ns() if time_ns is None else time_ns, _NS_PER_MS)
    fraction = (rest_ns << 12) // _NS_PER_MS
    version, variant = _VERSION_AND_VARIANT
    bits = secrets.randbits(_RANDOM_BITS) if random is None else random % (1 << _RANDOM_BITS)
    return uuid.UUID(int=ms << 80 | version << 76 | fraction << 64 | variant << _RANDOM_BITS | bits)


def time_of(event_id: uuid.UUID) -> datetime:
    """Return the moment inside a UUIDv7, aware UTC, to the ms.

    The row's `occurred_at` is derived and never set apart: so (occurred_at, event_id), the key of a
    table partitioned by time, is unique exactly where event_id is.

    Raises:
        ValidationError: it is no UUIDv7, or its time lies beyond the year 9999.
    """
    number = event_id.int
    if (number >> 76 & 0xF, number >> 62 & 0b11) != _VERSION_AND_VARIANT:
        raise ValidationError("an audit event's id must be a UUIDv7; use new_event_id()", field="event_id")
    try:
        return _EPOCH + timedelta(milliseconds=number >> 80)
    except OverflowError:
        raise ValidationError("an audit event's id lies beyond the year 9999", field="event_id") from None


def check_event_id(raw: bytes) -> None:
    """Refuse the 16 bytes of what `time_of` refuses, at a fraction of its cost.

    Raises:
        ValueError: it is no UUIDv7, or its time lies beyond the year 9999.
    """
    if (raw[6] >> 4, raw[8] >> 6) != _VERSION_AND_VARIANT or raw[:6] > _LATEST:
        raise ValueError("no id of an audit event")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """A fact for the audit log.

    Attributes:
        document: what only a reader with the private key may see: message, details, context, response,
            traceback. JSON-safe and redacted.
        user_id: who acted; leaves the process sealed inside the document, and as a blind index.
        subject_id: whom the data is about; leaves the process in the same two ways.
        attempt: the attempt of the task, from 0.
        retention_days: how long the row must be kept.

    All other attributes are stored in the clear, to be searched and counted.
    """

    event_type: EventType
    severity: str
    service: str
    operation: str
    document: Mapping[str, Any]
    outcome: str | None = None
    error_id: str | None = None
    error_code: str | None = None
    task_name: str | None = None
    task_id: str | None = None
    attempt: int | None = None
    pipeline_id: str | None = None
    stage: str | None = None
    hipaa_related: bool = False
    hipaa_notify: bool = False
    retention_days: int = 2190
    user_id: str | None = field(default=None, repr=False)
    subject_id: str | None = field(default=None, repr=False)
    event_id: uuid.UUID = field(default_factory=new_event_id)

    def __post_init__(self) -> None:
        time_of(self.event_id)

    @property
    def occurred_at(self) -> datetime:
        """When it happened, aware UTC, to the ms."""
        return time_of(self.event_id)


def operator_action(
    service: str,
    operation: str,
    by: str,
    document: Mapping[str, Any],
    *,
    severity: str,
    retention_days: int,
    **columns: Any,
) -> AuditEvent:
    """Return the event of what a person decided. Record it before that takes effect.

    Args:
        service: what was acted on.
        operation: what was done.
        by: who decided.
        document: the facts; they may bring a message of their own.
        severity: how grave it is.
        retention_days: how long the row must be kept.
        columns: other attributes of the event.
    """
    return AuditEvent(
        event_type=EventType.OPERATOR_ACTION,
        severity=severity,
        service=service,
        operation=operation,
        user_id=by,
        retention_days=retention_days,
        document={"message": f"{by}: {operation}", **document},
        **columns,
    )


class AuditUnavailableError(
    TechDeckError,
    code="AUDIT_UNAVAILABLE",
    http_status=503,
    severity=Severity.CRITICAL,
    retry=RetryRule.ALWAYS,
):
    """An event could be kept nowhere, and what it tells of must not go on unaudited."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)


class AuditTrail(Protocol):
    """Where events are handed to. An implementation returns only once the event is safe from a crash."""

    def record(self, event: AuditEvent) -> None:
        """Keep `event`, within a bounded time.

        Raises:
            AuditUnavailableError: it could be kept nowhere and the fail policy is closed.
        """
