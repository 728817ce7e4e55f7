"""Putting alerts on record."""

from __future__ import annotations

import logging
from typing import Any

from techdeck_tasks.alerts.condition import Severity
from techdeck_tasks.alerts.state import Alert
from techdeck_tasks.audit.event import (
    AuditEvent,
    AuditTrail,
    AuditUnavailableError,
    EventType,
    operator_action,
)
from techdeck_tasks.errors import Severity as ErrorSeverity

logger = logging.getLogger(__name__)

_SEVERITIES = {Severity.WARNING: ErrorSeverity.MEDIUM, Severity.CRITICAL: ErrorSeverity.CRITICAL}


class AlertRecord:
    """Writes to the audit log what becomes of alerts and who changes that."""

    def __init__(self, trail: AuditTrail, retention_days: int) -> None:
        self._trail = trail
        self._retention_days = retention_days

    def happened(self, operation: str, alert: Alert, **facts: Any) -> None:
        """Record what became of `alert`. Never raises: an alert that the audit log is away must be heard."""
        try:
            self._trail.record(
                AuditEvent(
                    event_type=EventType.ALERT,
                    severity=_SEVERITIES[Severity(alert.severity)],
                    service="alerts",
                    operation=operation,
                    retention_days=self._retention_days,
                    document={
                        "message": f"{operation} {alert.key}: {alert.message}",
                        "alert_id": str(alert.alert_id),
                        "value": alert.value,
                        "threshold": alert.threshold,
                        **facts,
                    },
                )
            )
        except AuditUnavailableError:
            logger.critical("%s %s is not in the audit log, which is unavailable", operation, alert.key)

    def decided(self, operation: str, by: str, /, **facts: Any) -> None:
        """Record an operator's decision, before it takes effect.

        Raises:
            AuditUnavailableError: it cannot be recorded; nothing may be changed.
        """
        self._trail.record(
            operator_action(
                "alerts",
                operation,
                by,
                {"owner": by, **facts},
                severity=ErrorSeverity.MEDIUM,
                retention_days=self._retention_days,
            )
        )
