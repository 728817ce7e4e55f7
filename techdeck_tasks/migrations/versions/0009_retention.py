# ruff: noqa: INP001 - alembic loads it by its path
"""How the audit log ends: legal holds, destroyed data keys, and functions that drop a month by the rules."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

_TIMESTAMP = sa.DateTime(timezone=True)

# A hold is released once; nothing else of it ever changes.
_ONLY_RELEASE = """
CREATE FUNCTION techdeck_audit_only_release() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept audit_hold := NEW;
BEGIN
    kept.released_at := OLD.released_at;
    kept.released_by := OLD.released_by;
    kept.release_reason := OLD.release_reason;
    IF OLD.released_at IS NOT NULL OR NEW.released_at IS NULL OR kept IS DISTINCT FROM OLD THEN
        RAISE EXCEPTION 'a legal hold may be released once, and not be changed'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""

# A destroyed key stays destroyed, and a key under another name would be another key; sealing anew is fine.
_ONLY_RESEAL_OR_ERASE = """
CREATE FUNCTION techdeck_audit_only_reseal_or_erase() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.erased_at IS NOT NULL OR NEW.key_id <> OLD.key_id OR NEW.tenant <> OLD.tenant
        OR NEW.created_at <> OLD.created_at
        OR (NEW.erased_at IS NOT NULL) <> (length(NEW.sealed_key) = 0) THEN
        RAISE EXCEPTION 'data key % may be sealed anew or destroyed, and not be changed', OLD.key_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""

# Run as the tables' owner, who alone may lock and drop partitions.
_CLOSE_MONTH = """
CREATE FUNCTION techdeck_audit_close_month(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    suffix text := '_p' || to_char(month, 'YYYYMM');
BEGIN
    LOCK TABLE audit_hold IN SHARE MODE;
    EXECUTE format('LOCK TABLE %I, %I IN SHARE ROW EXCLUSIVE MODE',
        'audit_event' || suffix, 'audit_event_id' || suffix);
END $$;
"""
# Checks again all that can be checked here: whose role may call it need not be trusted with the log.
_DROP_MONTH = """
CREATE FUNCTION techdeck_audit_drop_month(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', month);
    begins timestamptz := first_day::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (first_day + interval '1 month')::timestamp AT TIME ZONE 'UTC';
    found record;
    parent text;
    child text;
BEGIN
    PERFORM techdeck_audit_close_month(first_day);
    SELECT count(*) AS rows,
        max(extract(epoch FROM occurred_at) + retention_days::bigint * 86400) AS expires
        INTO found FROM audit_event WHERE occurred_at >= begins AND occurred_at < ends;
    IF NOT EXISTS (SELECT 1 FROM audit_tombstone t WHERE t.month = first_day AND t.rows = found.rows) THEN
        RAISE EXCEPTION 'month % has no tombstone of its % rows; "techdeck audit prune" makes it',
            first_day, found.rows USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF ends > now() OR found.expires > extract(epoch FROM now()) THEN
        RAISE EXCEPTION 'rows of month % must be kept longer', first_day
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (
        SELECT 1 FROM audit_hold h
        WHERE h.released_at IS NULL
        AND (h.occurred_from IS NULL OR h.occurred_from < ends)
        AND (h.occurred_until IS NULL OR h.occurred_until > begins)
        AND (h.pipeline_id IS NULL AND h.person_kind IS NULL OR EXISTS (
            SELECT 1 FROM audit_event e WHERE e.occurred_at >= begins AND e.occurred_at < ends
            AND (h.occurred_from IS NULL OR e.occurred_at >= h.occurred_from)
            AND (h.occurred_until IS NULL OR e.occurred_at < h.occurred_until)
            AND (h.pipeline_id IS NULL OR e.pipeline_id = h.pipeline_id)
            AND (h.person_kind IS NULL OR h.person_indexes @> ARRAY[
                CASE h.person_kind WHEN 'user' THEN e.user_index ELSE e.subject_index END])
        ))
    ) THEN
        RAISE EXCEPTION 'month % is under a legal hold', first_day USING ERRCODE = 'insufficient_privilege';
    END IF;
    FOREACH parent IN ARRAY ARRAY['audit_event', 'audit_event_id'] LOOP
        child := parent || '_p' || to_char(first_day, 'YYYYMM');
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
        EXECUTE format('DROP TABLE %I', child);
    END LOOP;
END $$;
"""

# The fixed path keeps temporary tables from standing in.
_DEFINER = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION {function}(date) SECURITY DEFINER SET search_path = %I, pg_temp',
        current_schema());
    REVOKE ALL ON FUNCTION {function}(date) FROM PUBLIC;
END $$;
"""
_CREATE_ROLE = """
DO $$ BEGIN
    CREATE ROLE techdeck_audit_keeper NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
"""
_GRANTS = (
    (
        "SELECT ON audit_event, audit_event_id, audit_data_key, audit_writer_head, audit_checkpoint,"
        " audit_tombstone, audit_verify_run, audit_hold TO techdeck_audit_keeper"
    ),
    "INSERT ON audit_tombstone, audit_hold TO techdeck_audit_keeper",
    "UPDATE ON audit_hold TO techdeck_audit_keeper",
    "UPDATE (recipient_id, sealed_key, erased_at) ON audit_data_key TO techdeck_audit_keeper",
    (
        "EXECUTE ON FUNCTION techdeck_audit_close_month(date), techdeck_audit_drop_month(date)"
        " TO techdeck_audit_keeper"
    ),
    "SELECT ON audit_hold TO techdeck_audit_writer, techdeck_audit_auditor",
)


def upgrade() -> None:
    """Create the table, the column, the functions, and the role where this user may."""
    op.create_table(
        "audit_hold",
        sa.Column("hold_id", postgresql.UUID(), nullable=False),
        sa.Column("created_at", _TIMESTAMP, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("occurred_from", _TIMESTAMP),
        sa.Column("occurred_until", _TIMESTAMP),
        sa.Column("pipeline_id", sa.Text()),
        sa.Column("person_kind", sa.Text()),
        sa.Column("person_indexes", postgresql.ARRAY(sa.LargeBinary())),
        sa.Column("released_at", _TIMESTAMP),
        sa.Column("released_by", sa.Text()),
        sa.Column("release_reason", sa.Text()),
        sa.CheckConstraint("person_kind IN ('user', 'subject')", name=op.f("ck_audit_hold_person_kind")),
        sa.CheckConstraint(
            "(person_kind IS NULL) = (person_indexes IS NULL)", name=op.f("ck_audit_hold_person")
        ),
        sa.CheckConstraint("occurred_from < occurred_until", name=op.f("ck_audit_hold_period")),
        sa.CheckConstraint(
            "(released_at IS NULL) = (released_by IS NULL)", name=op.f("ck_audit_hold_release")
        ),
        sa.PrimaryKeyConstraint("hold_id", name="pk_audit_hold"),
    )
    op.add_column("audit_data_key", sa.Column("erased_at", _TIMESTAMP))
    for statement in (_ONLY_RELEASE, _ONLY_RESEAL_OR_ERASE, _CLOSE_MONTH, _DROP_MONTH):
        op.execute(statement)
    for table, function in (
        ("audit_hold", "techdeck_audit_only_release"),
        ("audit_data_key", "techdeck_audit_only_reseal_or_erase"),
    ):
        _add_trigger(table, "refuse_change", "BEFORE UPDATE", "ROW", function)
        _add_trigger(table, "refuse_delete", "BEFORE DELETE", "ROW", "techdeck_audit_refuse")
        _add_trigger(table, "refuse_truncate", "BEFORE TRUNCATE", "STATEMENT", "techdeck_audit_refuse")
    for name in ("techdeck_audit_close_month", "techdeck_audit_drop_month"):
        op.execute(_DEFINER.format(function=name))
    _make_role()


def _add_trigger(table: str, name: str, when: str, each: str, function: str) -> None:
    op.execute(f"CREATE TRIGGER {name} {when} ON {table} FOR EACH {each} EXECUTE FUNCTION {function}()")
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _make_role() -> None:
    may = sa.text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    if not op.get_bind().execute(may).scalar_one():
        logger.warning(
            "this database user may not create roles: there is no techdeck_audit_keeper; see 'Roles' in "
            "docs/audit.md for the statements an administrator runs"
        )
        return
    op.execute(_CREATE_ROLE)
    for grant in _GRANTS:
        op.execute(f"GRANT {grant}")


def downgrade() -> None:
    """Refuse: a hold must not be forgotten."""
    raise RuntimeError("legal holds are not dropped by a downgrade; archive the database, then drop it whole")
