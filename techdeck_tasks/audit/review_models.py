"""The tables of those who review the log: security incidents, and compliance reports with their sign-off.

Both are projections: what they tell is in the audit log as well, where nobody can change it. They hold clear
columns, counts and redacted notes, never a sealed document's content.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Mapped, mapped_column

from techdeck_tasks.audit.models import Timestamp
from techdeck_tasks.storage.database import Base


class SecurityIncident(Base):
    """One incident and its investigation. `incident_id` is the id of the event that told of it."""

    __tablename__ = "security_incident"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'investigating', 'resolved', 'dismissed')", name="state"),
        CheckConstraint(
            "(state = 'open') = (changed_at IS NULL) AND (changed_at IS NULL) = (changed_by IS NULL)",
            name="changed",
        ),
        CheckConstraint(
            "(notification_sent_at IS NULL) = (notification_channel IS NULL)", name="notification"
        ),
        Index(
            "ix_security_incident_deadline",
            "notification_deadline",
            postgresql_where=text("state IN ('open', 'investigating')"),
        ),
        Index(
            "ix_security_incident_unnotified",
            "discovered_at",
            postgresql_where=text("notification_sent_at IS NULL"),
        ),
        Index("ix_security_incident_discovered_at", "discovered_at"),
    )

    incident_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    # Unique: an error that is handled twice is one incident.
    error_id: Mapped[str | None] = mapped_column(Text, unique=True)
    error_code: Mapped[str | None] = mapped_column(Text)
    severity: Mapped[str] = mapped_column(Text)
    service: Mapped[str] = mapped_column(Text)
    operation: Mapped[str] = mapped_column(Text)
    pipeline_id: Mapped[str | None] = mapped_column(Text)
    task_id: Mapped[str | None] = mapped_column(Text)
    discovered_at: Mapped[datetime] = mapped_column(Timestamp)
    notification_deadline: Mapped[datetime] = mapped_column(Timestamp)
    # See IncidentState for which action sets each state.
    state: Mapped[str] = mapped_column(Text)
    assignee: Mapped[str | None] = mapped_column(Text)
    changed_at: Mapped[datetime | None] = mapped_column(Timestamp)
    changed_by: Mapped[str | None] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
    # Whether the information was secured in the sense of 45 CFR 164.402; NULL until somebody has judged.
    secured: Mapped[bool | None]
    notification_sent_at: Mapped[datetime | None] = mapped_column(Timestamp)
    notification_channel: Mapped[str | None] = mapped_column(Text)


class ComplianceReportRow(Base):
    """One report as it was generated, byte for byte, and who signed it off. A trigger keeps it so."""

    __tablename__ = "compliance_report"
    __table_args__ = (
        CheckConstraint("kind IN ('daily', 'weekly', 'monthly', 'on_demand')", name="kind"),
        CheckConstraint("period_start < period_end", name="period"),
        CheckConstraint("(reviewed_at IS NULL) = (reviewed_by IS NULL)", name="review"),
        # Two schedulers in one slot make one report.
        Index(
            "uq_compliance_report_slot",
            "kind",
            "period_start",
            unique=True,
            postgresql_where=text("kind <> 'on_demand'"),
        ),
        Index("ix_compliance_report_generated_at", "generated_at"),
    )

    report_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    period_start: Mapped[datetime] = mapped_column(Timestamp)
    period_end: Mapped[datetime] = mapped_column(Timestamp)
    generated_at: Mapped[datetime] = mapped_column(Timestamp)
    generated_by: Mapped[str] = mapped_column(Text)
    # The JSON text itself: jsonb would not keep the bytes that the digest is of.
    document: Mapped[str] = mapped_column(Text)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    reviewed_at: Mapped[datetime | None] = mapped_column(Timestamp)
    reviewed_by: Mapped[str | None] = mapped_column(Text)
    review_note: Mapped[str | None] = mapped_column(Text)
