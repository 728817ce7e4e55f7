# ruff: noqa: INP001 - alembic loads it by its path
"""Proof of the audit log: signed checkpoints and tombstones, verification runs, and roles for each duty."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

_TIMESTAMP = sa.DateTime(timezone=True)

_GRANTS = {
    "techdeck_audit_writer": {
        "SELECT, INSERT": "audit_event, audit_event_id, audit_data_key, audit_writer_head, audit_checkpoint,"
        " audit_verify_run",
        "SELECT": "audit_tombstone",
        "UPDATE (writer_seq, row_hash, updated_at)": "audit_writer_head",
    },
    "techdeck_audit_reader": {"SELECT": "audit_event, audit_data_key"},
    # No data keys: who proves that the log is whole need not be able to read it.
    "techdeck_audit_auditor": {
        "SELECT": "audit_event, audit_event_id, audit_writer_head, audit_checkpoint, audit_tombstone,"
        " audit_verify_run",
    },
}

# Roles belong to the server, not to the database: another database's migration may make them at this moment.
_CREATE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
"""

# A writer makes partitions without owning the log. The fixed path keeps temporary tables from standing in.
_DEFINER = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION techdeck_audit_ensure_partition(date) SECURITY DEFINER '
        'SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION techdeck_audit_ensure_partition(date) FROM PUBLIC;
END $$;
"""


def upgrade() -> None:
    """Create the tables, their triggers, and the roles where this user may."""
    for table, key in (
        ("audit_checkpoint", sa.Column("checkpoint_seq", sa.BigInteger(), nullable=False)),
        ("audit_tombstone", sa.Column("month", sa.Date(), nullable=False)),
    ):
        op.create_table(
            table,
            key,
            sa.Column("made_at", _TIMESTAMP, nullable=False),
            sa.Column("rows", sa.BigInteger(), nullable=False),
            sa.Column("key_id", sa.Text(), nullable=False),
            sa.Column("statement", sa.LargeBinary(), nullable=False),
            sa.Column("signature", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint(key.name, name=f"pk_{table}"),
        )
    op.create_table(
        "audit_verify_run",
        sa.Column("run_id", postgresql.UUID(), nullable=False),
        sa.Column("started_at", _TIMESTAMP, nullable=False),
        sa.Column("finished_at", _TIMESTAMP, nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("writers", sa.Integer(), nullable=False),
        sa.Column("checkpoints", sa.BigInteger(), nullable=False),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("finding_count", sa.Integer(), nullable=False),
        sa.Column("findings", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_audit_verify_run"),
    )
    op.create_index("ix_audit_verify_run_started_at", "audit_verify_run", ["started_at"])
    for table in ("audit_checkpoint", "audit_tombstone", "audit_verify_run"):
        _add_trigger(table, "refuse_change", "BEFORE UPDATE OR DELETE", "ROW")
        _add_trigger(table, "refuse_truncate", "BEFORE TRUNCATE", "STATEMENT")
    op.execute(_DEFINER)
    _make_roles()


def _add_trigger(table: str, name: str, when: str, each: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH {each} EXECUTE FUNCTION techdeck_audit_refuse()"
    )
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _make_roles() -> None:
    may = sa.text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    if not op.get_bind().execute(may).scalar_one():
        logger.warning(
            "this database user may not create roles: the audit log has no roles of its own; "
            "see 'Roles' in docs/audit.md for the statements an administrator runs"
        )
        return
    for role, grants in _GRANTS.items():
        op.execute(_CREATE_ROLE.format(role=role))
        for privileges, tables in grants.items():
            op.execute(f"GRANT {privileges} ON {tables} TO {role}")
    op.execute("GRANT EXECUTE ON FUNCTION techdeck_audit_ensure_partition(date) TO techdeck_audit_writer")


def downgrade() -> None:
    """Refuse: without its checkpoints the log proves less than it did."""
    raise RuntimeError(
        "the audit log's checkpoints are not dropped by a downgrade; archive the database, then drop it whole"
    )
