"""Scheduled verification: its result is kept, and findings become a security incident."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import Engine, func, insert, select
from sqlalchemy.engine import Row

from techdeck_tasks.audit.event import AuditEvent, AuditTrail, EventType
from techdeck_tasks.audit.models import AuditVerifyRun
from techdeck_tasks.audit.proof.finding import VerifyReport
from techdeck_tasks.errors import Severity
from techdeck_tasks.storage.database import transaction

logger = logging.getLogger(__name__)

MAX_KEPT_FINDINGS = 200

MAX_AHEAD = timedelta(minutes=5)
"""So far may the clock of an audit worker be ahead of PostgreSQL's."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A verification that was made.

    Attributes:
        started_at: aware UTC, as is `finished_at`.
        rows: how many were recomputed, in `writers` chains under `checkpoints` checkpoints.
        ok: whether nothing was found.
        finding_count: how much was found; `findings` are the first of them.
    """

    started_at: datetime
    finished_at: datetime
    rows: int
    writers: int
    checkpoints: int
    ok: bool
    finding_count: int
    findings: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, report: VerifyReport, started_at: datetime, finished_at: datetime) -> Self:
        """Return what is kept of `report`."""
        findings = tuple(finding.to_dict() for finding in report.findings[:MAX_KEPT_FINDINGS])
        counts = (report.rows, report.writers, report.checkpoints)
        return cls(started_at, finished_at, *counts, report.ok, len(report.findings), findings)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data."""
        return {
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "rows": self.rows,
            "writers": self.writers,
            "checkpoints": self.checkpoints,
            "ok": self.ok,
            "finding_count": self.finding_count,
            "findings": list(self.findings),
        }


def keep(engine: Engine, verification: Verification) -> None:
    """Store the result.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
    """
    with transaction(engine) as connection:
        connection.execute(
            insert(AuditVerifyRun).values(
                run_id=uuid.uuid4(),
                started_at=verification.started_at,
                finished_at=verification.finished_at,
                rows=verification.rows,
                writers=verification.writers,
                checkpoints=verification.checkpoints,
                ok=verification.ok,
                finding_count=verification.finding_count,
                findings=list(verification.findings),
            )
        )


def last(engine: Engine) -> Verification | None:
    """Return the newest result; None where the log was never verified.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
    """
    # Not from the future: one that somebody dates ahead would hide all that follow.
    ended = select(AuditVerifyRun.__table__).where(AuditVerifyRun.finished_at <= func.now() + MAX_AHEAD)
    newest = ended.order_by(AuditVerifyRun.started_at.desc()).limit(1)
    with transaction(engine) as connection:
        row: Row[Any] | None = connection.execute(newest).one_or_none()
    if row is None:
        return None
    counts = (row.rows, row.writers, row.checkpoints)
    return Verification(
        row.started_at, row.finished_at, *counts, row.ok, row.finding_count, tuple(row.findings)
    )


def raise_incident(trail: AuditTrail, verification: Verification, retention_days: int) -> None:
    """Put a verification that found something on record as a security incident, and log it.

    Raises:
        AuditUnavailableError: it could be kept nowhere; it was logged.
    """
    for finding in verification.findings:
        logger.critical("audit verify: %s, %s: %s", finding["verdict"], finding["chain"], finding["detail"])
    trail.record(
        AuditEvent(
            event_type=EventType.SECURITY_INCIDENT,
            severity=Severity.CRITICAL,
            service="audit",
            operation="verify",
            hipaa_related=True,
            retention_days=retention_days,
            document={
                "message": f"the audit log was changed: {verification.finding_count} findings",
                **verification.to_dict(),
            },
        )
    )
