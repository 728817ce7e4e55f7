# ruff: noqa: INP001 - alembic loads it by its path
"""The audit log: partitioned events, writers' heads, data keys, and the triggers that keep it append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIMESTAMP = sa.DateTime(timezone=True)

# A trigger and not only a missing grant: it also stops the tables' owner, who makes the partitions.
_REFUSE = """
CREATE FUNCTION techdeck_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
"""

# A head moves forward only.
_REFUSE_BACKWARD = """
CREATE FUNCTION techdeck_audit_refuse_backward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.writer_id <> OLD.writer_id OR NEW.writer_seq <= OLD.writer_seq THEN
        RAISE EXCEPTION 'the head of writer % is at % and moves forward only', OLD.writer_id, OLD.writer_seq
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""

# Made apart and then attached, which lets readers and writers of the parent go on: CREATE TABLE ... PARTITION
# OF waits for a running verify, and everybody else waits behind it. TRUNCATE triggers are not cloned to
# partitions, so each gets its own. ENABLE ALWAYS holds under session_replication_role = replica too.
_ENSURE_PARTITION = """
CREATE FUNCTION techdeck_audit_ensure_partition(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', month);
    parent text;
    child text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['audit_event', 'audit_event_id'] LOOP
        child := parent || '_p' || to_char(first_day, 'YYYYMM');
        CONTINUE WHEN to_regclass(child) IS NOT NULL;
        -- The lock that ATTACH takes. An advisory lock would not do: after it, the catalogue's cache still
        -- says that there is no such table.
        EXECUTE format('LOCK TABLE %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
        CONTINUE WHEN to_regclass(child) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
            first_day::timestamp AT TIME ZONE 'UTC',
            (first_day + interval '1 month')::timestamp AT TIME ZONE 'UTC');
        EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION techdeck_audit_refuse()', child);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER refuse_truncate', child);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Create the tables, functions and triggers."""
    op.create_table(
        "audit_event",
        sa.Column("occurred_at", _TIMESTAMP, nullable=False),
        sa.Column("event_id", postgresql.UUID(), nullable=False),
        sa.Column("recorded_at", _TIMESTAMP, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("producer_id", postgresql.UUID(), nullable=False),
        sa.Column("producer_seq", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("retention_days", sa.Integer(), nullable=False),
        sa.Column("hipaa_related", sa.Boolean(), nullable=False),
        sa.Column("hipaa_notify", sa.Boolean(), nullable=False),
        sa.Column("key_id", postgresql.UUID(), nullable=False),
        sa.Column("sealed_document", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("error_id", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("task_name", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("attempt", sa.Integer()),
        sa.Column("pipeline_id", sa.Text()),
        sa.Column("stage", sa.Text()),
        sa.Column("user_index", sa.LargeBinary()),
        sa.Column("subject_index", sa.LargeBinary()),
        sa.Column("content_digest", sa.LargeBinary(), nullable=False),
        sa.Column("writer_id", sa.Text(), nullable=False),
        sa.Column("writer_seq", sa.BigInteger(), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("row_hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("occurred_at", "event_id", name="pk_audit_event"),
        postgresql_partition_by="RANGE (occurred_at)",
    )
    for name, columns in {
        "ix_audit_event_writer": ["writer_id", "writer_seq"],
        "ix_audit_event_producer": ["producer_id", "producer_seq"],
        "ix_audit_event_error_id": ["error_id"],
        "ix_audit_event_task_id": ["task_id"],
        "ix_audit_event_pipeline_id": ["pipeline_id"],
        "ix_audit_event_error_code": ["error_code", "occurred_at"],
        "ix_audit_event_user_index": ["user_index"],
        "ix_audit_event_subject_index": ["subject_index"],
    }.items():
        op.create_index(name, "audit_event", columns)
    op.create_table(
        "audit_event_id",
        sa.Column("occurred_at", _TIMESTAMP, nullable=False),
        sa.Column("event_id", postgresql.UUID(), nullable=False),
        sa.Column("content_digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("occurred_at", "event_id", name="pk_audit_event_id"),
        postgresql_partition_by="RANGE (occurred_at)",
    )
    op.create_table(
        "audit_writer_head",
        sa.Column("writer_id", sa.Text(), nullable=False),
        sa.Column("writer_seq", sa.BigInteger(), nullable=False),
        sa.Column("row_hash", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", _TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("writer_id", name="pk_audit_writer_head"),
    )
    op.create_table(
        "audit_data_key",
        sa.Column("key_id", postgresql.UUID(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("recipient_id", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_audit_data_key"),
    )
    # Ciphertext does not shrink: PostgreSQL need not try.
    op.execute("ALTER TABLE audit_event ALTER COLUMN sealed_document SET STORAGE EXTERNAL")
    op.execute(_REFUSE)
    op.execute(_REFUSE_BACKWARD)
    op.execute(_ENSURE_PARTITION)
    for table in ("audit_event", "audit_event_id"):
        _add_trigger(table, "refuse_change", "BEFORE UPDATE OR DELETE", "ROW")
        _add_trigger(table, "refuse_truncate", "BEFORE TRUNCATE", "STATEMENT")
    head = "audit_writer_head"
    _add_trigger(head, "refuse_backward", "BEFORE UPDATE", "ROW", "techdeck_audit_refuse_backward")
    _add_trigger(head, "refuse_delete", "BEFORE DELETE", "ROW")
    _add_trigger(head, "refuse_truncate", "BEFORE TRUNCATE", "STATEMENT")


def _add_trigger(
    table: str, name: str, when: str, each: str, function: str = "techdeck_audit_refuse"
) -> None:
    op.execute(f"CREATE TRIGGER {name} {when} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def downgrade() -> None:
    """Refuse: dropping an audit log is no migration."""
    raise RuntimeError(
        "the audit log is not dropped by a downgrade; archive the database and drop it as a whole"
    )
