"""What a security incident is: which errors are one, what is recorded of it, and how it is investigated."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from techdeck_tasks.audit.event import time_of
from techdeck_tasks.errors import Classification, Severity, TechDeckError, error_id_of
from techdeck_tasks.redaction import sanitize_context

SECURITY_CODES = frozenset({"AUTH_ERROR", "AUTHZ_ERROR", "ENCRYPTION_ERROR", "HIPAA_COMPLIANCE_ERROR"})
"""Errors that are security incidents by themselves."""

NOTIFICATION_PERIOD = timedelta(days=60)
"""From discovery to the last day for telling the individuals concerned, 45 CFR 164.404(b)."""

SECURITY_REDACTED = "[SECURITY_REDACTED]"
_SECURITY_KEYS = ("encryption_key", "decryption_key", "certificate", "private_key")
_NOT_CONTEXT = frozenset({"user_id", "subject_id"})


class IncidentState(StrEnum):
    """Where the investigation stands. Each change names who made it, and is in the audit log before."""

    OPEN = "open"
    """Set when the incident is entered."""
    INVESTIGATING = "investigating"
    """Set by `assign`, from open or again for another person."""
    RESOLVED = "resolved"
    """Set by `resolve`, for good."""
    DISMISSED = "dismissed"
    """Set by `dismiss`, for good: it was no incident."""


UNRESOLVED = (IncidentState.OPEN, IncidentState.INVESTIGATING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident as the table has it; moments are aware UTC.

    Attributes:
        incident_id: the id of the event of the audit log that told of it.
        notification_deadline: 60 days after it was discovered.
        note: what the last change was justified with, redacted.
        secured: whether the information was unreadable to others (45 CFR 164.402); None: not judged yet.
    """

    incident_id: str
    error_id: str | None
    error_code: str | None
    severity: str
    service: str
    operation: str
    pipeline_id: str | None
    task_id: str | None
    discovered_at: datetime
    notification_deadline: datetime
    state: IncidentState
    assignee: str | None
    changed_at: datetime | None
    changed_by: str | None
    note: str | None
    secured: bool | None
    notification_sent_at: datetime | None
    notification_channel: str | None

    @property
    def notification_sent(self) -> bool:
        """Whether a channel has accepted the notification."""
        return self.notification_sent_at is not None

    @property
    def unresolved(self) -> bool:
        """Whether somebody still has to look at it."""
        return self.state in UNRESOLVED

    def overdue(self, now: datetime) -> bool:
        """Tell whether the deadline is over and nobody has resolved it."""
        return self.unresolved and now > self.notification_deadline

    def to_dict(self, now: datetime) -> dict[str, Any]:
        """Return it JSON-safe, with what follows from `now`."""
        facts = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }
        return {**facts, "notification_sent": self.notification_sent, "overdue": self.overdue(now)}


def incident_severity(error_code: str) -> Severity:
    """Return how bad an incident with that code is, by the specification."""
    return Severity.HIGH if error_code == "HIPAA_COMPLIANCE_ERROR" else Severity.MEDIUM


def incident_document(
    event_id: uuid.UUID, error: BaseException, found: Classification, context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is sealed of an incident: the specification's keys, JSON-safe and redacted."""
    details = error.details if isinstance(error, TechDeckError) else {}
    return {
        "message": f"security incident: {found.error_code}",
        "incident_id": str(event_id),
        "incident_type": "security_error",
        "severity": incident_severity(found.error_code).value,
        "timestamp": time_of(event_id).isoformat(),
        "error_id": error_id_of(error),
        "error_code": found.error_code,
        "error_details": hide_key_material(sanitize_context(details)),
        "context": sanitize_context({k: v for k, v in context.items() if k not in _NOT_CONTEXT}),
        "requires_investigation": True,
        "notification_sent": False,
    }


def hide_key_material(details: Any) -> Any:
    """Return `details` with everything under a key that names key material replaced, at any depth."""
    if isinstance(details, Mapping):
        return {
            key: SECURITY_REDACTED
            if any(word in str(key).lower() for word in _SECURITY_KEYS)
            else hide_key_material(value)
            for key, value in details.items()
        }
    return [hide_key_material(item) for item in details] if isinstance(details, list) else details
