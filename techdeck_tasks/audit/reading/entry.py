"""A row of the audit log as its reader sees it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any

from techdeck_tasks.audit.canonical import AuditRecord

_HIDDEN = frozenset({"sealed_document", "user_index", "subject_index"})
_OUTWARD = tuple(field.name for field in fields(AuditRecord) if field.name not in _HIDDEN)
_outward_values = attrgetter(*_OUTWARD)
_IDS = ("event_id", "producer_id", "key_id")
ENTRY_KEYS = ("occurred_at", "recorded_at", *_OUTWARD, "document", "erased_at", "problem")
"""The keys of `AuditEntry.to_dict`, in its order."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row as its reader sees it.

    Attributes:
        document: None for a reader without the private key, after shredding, and where there is a problem.
        erased_at: when its data key was destroyed, aware UTC; None: it was not.
        problem: why the document does not open under the reader's key.
    """

    record: AuditRecord
    recorded_at: datetime
    document: dict[str, Any] | None
    erased_at: datetime | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON-safe data, without the ciphertext and the blind indexes."""
        entry = {
            "occurred_at": self.record.occurred_at.isoformat(),
            "recorded_at": self.recorded_at.isoformat(),
            **dict(zip(_OUTWARD, _outward_values(self.record), strict=True)),
            "document": self.document,
            "erased_at": None if self.erased_at is None else self.erased_at.isoformat(),
            "problem": self.problem,
        }
        for name in _IDS:
            entry[name] = str(entry[name])
        return entry

    def to_log(self) -> dict[str, Any]:
        """Return the entry under the specification's keys, JSON-safe.

        What is sealed is None for a reader without the private key; `error_classification` then holds the
        clear columns only.
        """
        record, document = self.record, self.document or {}
        violation = record.hipaa_related
        return {
            "audit_id": str(record.event_id),
            "event_type": record.event_type,
            "timestamp": record.occurred_at.isoformat(),
            "error_id": record.error_id,
            "error_code": record.error_code,
            "error_message": document.get("message"),
            "error_classification": {
                "error_code": record.error_code,
                "error_type": document.get("error_type"),
                "severity": record.severity,
                "service": record.service,
                "operation": record.operation,
                "details": document.get("details"),
            },
            "response_generated": document.get("response"),
            "context": document.get("context"),
            "hipaa_compliance": {
                "hipaa_related": violation,
                "compliance_status": "violation" if violation else "compliant",
                "requires_review": violation,
                "notification_required": record.hipaa_notify,
            },
            "retention_period_days": record.retention_days,
        }
