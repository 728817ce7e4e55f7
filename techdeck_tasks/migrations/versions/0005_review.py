# ruff: noqa: INP001 - alembic loads it by its path
"""Security incidents and compliance reports, and the indexes that find what they are made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIMESTAMP = sa.DateTime(timezone=True)

# A report is evidence: it may be signed off, once, and nothing else.
_REFUSE_CHANGE = """
CREATE FUNCTION techdeck_report_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.reviewed_at IS NULL
        AND (to_jsonb(NEW) - ARRAY['reviewed_at', 'reviewed_by', 'review_note'])
          = (to_jsonb(OLD) - ARRAY['reviewed_at', 'reviewed_by', 'review_note'])
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a compliance report is signed off once and never changed: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;
"""


def upgrade() -> None:
    """Create the tables, the indexes and the trigger."""
    op.create_index(
        "ix_audit_event_incident",
        "audit_event",
        ["occurred_at"],
        postgresql_where=sa.text("event_type = 'security_incident'"),
    )
    op.create_index(
        "ix_audit_event_hipaa", "audit_event", ["occurred_at"], postgresql_where=sa.text("hipaa_related")
    )
    op.create_table(
        "security_incident",
        sa.Column("incident_id", postgresql.UUID(), nullable=False),
        sa.Column("error_id", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("pipeline_id", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("discovered_at", _TIMESTAMP, nullable=False),
        sa.Column("notification_deadline", _TIMESTAMP, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("assignee", sa.Text()),
        sa.Column("changed_at", _TIMESTAMP),
        sa.Column("changed_by", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("secured", sa.Boolean()),
        sa.Column("notification_sent_at", _TIMESTAMP),
        sa.Column("notification_channel", sa.Text()),
        sa.CheckConstraint(
            "state IN ('open', 'investigating', 'resolved', 'dismissed')",
            name=op.f("ck_security_incident_state"),
        ),
        sa.CheckConstraint(
            "(state = 'open') = (changed_at IS NULL) AND (changed_at IS NULL) = (changed_by IS NULL)",
            name=op.f("ck_security_incident_changed"),
        ),
        sa.CheckConstraint(
            "(notification_sent_at IS NULL) = (notification_channel IS NULL)",
            name=op.f("ck_security_incident_notification"),
        ),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("pk_security_incident")),
        sa.UniqueConstraint("error_id", name=op.f("uq_security_incident_error_id")),
    )
    op.create_index(
        "ix_security_incident_deadline",
        "security_incident",
        ["notification_deadline"],
        postgresql_where=sa.text("state IN ('open', 'investigating')"),
    )
    op.create_index(
        "ix_security_incident_unnotified",
        "security_incident",
        ["discovered_at"],
        postgresql_where=sa.text("notification_sent_at IS NULL"),
    )
    op.create_index("ix_security_incident_discovered_at", "security_incident", ["discovered_at"])
    op.create_table(
        "compliance_report",
        sa.Column("report_id", postgresql.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("period_start", _TIMESTAMP, nullable=False),
        sa.Column("period_end", _TIMESTAMP, nullable=False),
        sa.Column("generated_at", _TIMESTAMP, nullable=False),
        sa.Column("generated_by", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("reviewed_at", _TIMESTAMP),
        sa.Column("reviewed_by", sa.Text()),
        sa.Column("review_note", sa.Text()),
        sa.CheckConstraint(
            "kind IN ('daily', 'weekly', 'monthly', 'on_demand')", name=op.f("ck_compliance_report_kind")
        ),
        sa.CheckConstraint("period_start < period_end", name=op.f("ck_compliance_report_period")),
        sa.CheckConstraint(
            "(reviewed_at IS NULL) = (reviewed_by IS NULL)", name=op.f("ck_compliance_report_review")
        ),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_compliance_report")),
    )
    op.create_index(
        "uq_compliance_report_slot",
        "compliance_report",
        ["kind", "period_start"],
        unique=True,
        postgresql_where=sa.text("kind <> 'on_demand'"),
    )
    op.create_index("ix_compliance_report_generated_at", "compliance_report", ["generated_at"])
    op.execute(_REFUSE_CHANGE)
    op.execute(
        "CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON compliance_report "
        "FOR EACH ROW EXECUTE FUNCTION techdeck_report_refuse()"
    )
    op.execute("ALTER TABLE compliance_report ENABLE ALWAYS TRIGGER refuse_change")


def downgrade() -> None:
    """Refuse: investigations and signatures are records."""
    raise RuntimeError("incidents and signed reports are not dropped by a downgrade; archive the database")
