"""The tables of alerts. They hold codes, counts and names, never data."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import Mapped, mapped_column

from techdeck_tasks.storage.database import Base

_Moment = DateTime(timezone=True)


class AlertRow(Base):
    """One alert from its first sight to its end; see `alerts.state.Alert`."""

    __tablename__ = "alert"

    alert_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    alert_type: Mapped[str] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    severity: Mapped[str] = mapped_column(Text)
    # See AlertState for which transition sets each state.
    state: Mapped[str] = mapped_column(Text)
    message: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None]
    threshold: Mapped[float | None]
    items: Mapped[list[str]] = mapped_column(JSONB)
    held: Mapped[int]
    missed: Mapped[int]
    first_seen: Mapped[datetime] = mapped_column(_Moment)
    last_seen: Mapped[datetime] = mapped_column(_Moment)
    fired_at: Mapped[datetime | None] = mapped_column(_Moment)
    announced_at: Mapped[datetime | None] = mapped_column(_Moment)
    reminded_at: Mapped[datetime | None] = mapped_column(_Moment)
    escalated_at: Mapped[datetime | None] = mapped_column(_Moment)
    notified_at: Mapped[datetime | None] = mapped_column(_Moment)
    resolved_at: Mapped[datetime | None] = mapped_column(_Moment)
    acknowledged_by: Mapped[str | None] = mapped_column(Text)
    acknowledged_at: Mapped[datetime | None] = mapped_column(_Moment)

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'firing', 'resolved')", name="state"),
        CheckConstraint("(state = 'resolved') = (resolved_at IS NOT NULL)", name="resolved"),
        CheckConstraint("(state = 'pending') = (fired_at IS NULL)", name="fired"),
        CheckConstraint("(acknowledged_by IS NULL) = (acknowledged_at IS NULL)", name="acknowledged"),
        Index("ix_alert_active_key", "key", unique=True, postgresql_where=text("state <> 'resolved'")),
        Index("ix_alert_last_seen", "last_seen"),
    )


class AlertDeliveryRow(Base):
    """One notice on its way to one channel."""

    __tablename__ = "alert_delivery"

    delivery_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    alert_id: Mapped[uuid.UUID] = mapped_column(UUID, ForeignKey(AlertRow.alert_id, ondelete="CASCADE"))
    notice: Mapped[str] = mapped_column(Text)
    # The channel's place in the settings and its kind, never its URL.
    channel: Mapped[str] = mapped_column(Text)
    # pending until a channel accepts it (delivered), too many attempts failed (failed), or a later notice
    # of the same alert takes its place (superseded).
    state: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int]
    items: Mapped[list[str]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(_Moment)
    # While pending: when it may be tried; a sender moves it on first, so that no other sends it too.
    next_attempt_at: Mapped[datetime] = mapped_column(_Moment)
    delivered_at: Mapped[datetime | None] = mapped_column(_Moment)
    # Why the last attempt failed.
    problem: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed', 'superseded')", name="state"),
        CheckConstraint("(state = 'delivered') = (delivered_at IS NOT NULL)", name="delivered"),
        Index("ix_alert_delivery_alert_id", "alert_id"),
        Index("ix_alert_delivery_due", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    )


class AlertSilenceRow(Base):
    """Alerts of a type, of a subject, or of both, about which nobody is told for a time."""

    __tablename__ = "alert_silence"

    silence_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    alert_type: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(_Moment)
    until: Mapped[datetime] = mapped_column(_Moment)

    __table_args__ = (
        CheckConstraint("alert_type IS NOT NULL OR subject IS NOT NULL", name="matches_something"),
        Index("ix_alert_silence_until", "until"),
    )


class AlertEvaluationRow(Base):
    """The one row that evaluators meet at: one at a time, and not twice for one slot."""

    __tablename__ = "alert_evaluation"

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    first_at: Mapped[datetime] = mapped_column(_Moment)
    last_at: Mapped[datetime] = mapped_column(_Moment)

    __table_args__ = (CheckConstraint("single", name="single"),)
