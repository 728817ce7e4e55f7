# ruff: noqa: INP001 - alembic loads it by its path
"""Alerts, their notices, silences, and the evaluators' turn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    moment = sa.DateTime(timezone=True)
    items = postgresql.JSONB(astext_type=sa.Text())
    op.create_table(
        "alert",
        sa.Column("alert_id", sa.UUID(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("alert_type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("items", items, nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("missed", sa.Integer(), nullable=False),
        sa.Column("first_seen", moment, nullable=False),
        sa.Column("last_seen", moment, nullable=False),
        sa.Column("fired_at", moment, nullable=True),
        sa.Column("announced_at", moment, nullable=True),
        sa.Column("reminded_at", moment, nullable=True),
        sa.Column("escalated_at", moment, nullable=True),
        sa.Column("notified_at", moment, nullable=True),
        sa.Column("resolved_at", moment, nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("acknowledged_at", moment, nullable=True),
        sa.CheckConstraint("state IN ('pending', 'firing', 'resolved')", name=op.f("ck_alert_state")),
        sa.CheckConstraint(
            "(state = 'resolved') = (resolved_at IS NOT NULL)", name=op.f("ck_alert_resolved")
        ),
        sa.CheckConstraint("(state = 'pending') = (fired_at IS NULL)", name=op.f("ck_alert_fired")),
        sa.CheckConstraint(
            "(acknowledged_by IS NULL) = (acknowledged_at IS NULL)", name=op.f("ck_alert_acknowledged")
        ),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alert")),
    )
    op.create_index(
        "ix_alert_active_key", "alert", ["key"], unique=True, postgresql_where=sa.text("state <> 'resolved'")
    )
    op.create_index("ix_alert_last_seen", "alert", ["last_seen"], unique=False)
    op.create_table(
        "alert_delivery",
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("alert_id", sa.UUID(), nullable=False),
        sa.Column("notice", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("items", items, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("next_attempt_at", moment, nullable=False),
        sa.Column("delivered_at", moment, nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'failed', 'superseded')", name=op.f("ck_alert_delivery_state")
        ),
        sa.CheckConstraint(
            "(state = 'delivered') = (delivered_at IS NOT NULL)", name=op.f("ck_alert_delivery_delivered")
        ),
        sa.ForeignKeyConstraint(
            ["alert_id"],
            ["alert.alert_id"],
            name=op.f("fk_alert_delivery_alert_id_alert"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_alert_delivery")),
    )
    op.create_index("ix_alert_delivery_alert_id", "alert_delivery", ["alert_id"], unique=False)
    op.create_index(
        "ix_alert_delivery_due",
        "alert_delivery",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "alert_silence",
        sa.Column("silence_id", sa.UUID(), nullable=False),
        sa.Column("alert_type", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("until", moment, nullable=False),
        sa.CheckConstraint(
            "alert_type IS NOT NULL OR subject IS NOT NULL", name=op.f("ck_alert_silence_matches_something")
        ),
        sa.PrimaryKeyConstraint("silence_id", name=op.f("pk_alert_silence")),
    )
    op.create_index("ix_alert_silence_until", "alert_silence", ["until"], unique=False)
    op.create_table(
        "alert_evaluation",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("first_at", moment, nullable=False),
        sa.Column("last_at", moment, nullable=False),
        sa.CheckConstraint("single", name=op.f("ck_alert_evaluation_single")),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_alert_evaluation")),
    )


def downgrade() -> None:
    """Drop the tables: what is firing will be told again."""
    for table in ("alert_evaluation", "alert_silence", "alert_delivery", "alert"):
        op.drop_table(table)
