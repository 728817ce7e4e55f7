# ruff: noqa: INP001 - alembic loads it by its path
"""A writer makes the months that events can come of, and not any number of tables."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# An event is accepted up to 366 days late and a day early, and two months are made ahead. To replace a
# function takes away what ALTER FUNCTION gave it.
_ENSURE_PARTITION = """
CREATE OR REPLACE FUNCTION techdeck_audit_ensure_partition(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', month);
    parent text;
    child text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['audit_event', 'audit_event_id'] LOOP
        child := parent || '_p' || to_char(first_day, 'YYYYMM');
        CONTINUE WHEN to_regclass(child) IS NOT NULL;
        -- The owner, who restores old months, say, makes any.
        IF NOT pg_has_role(session_user, current_user, 'USAGE') AND (
            first_day < date_trunc('month', now() AT TIME ZONE 'UTC') - interval '14 months'
            OR first_day > date_trunc('month', now() AT TIME ZONE 'UTC') + interval '3 months'
        ) THEN
            RAISE EXCEPTION 'no event of % can come now, by the clock of PostgreSQL: its month is not made',
                to_char(first_day, 'YYYY-MM') USING ERRCODE = 'insufficient_privilege';
        END IF;
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
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION techdeck_audit_ensure_partition(date) SECURITY DEFINER '
        'SET search_path = %I, pg_temp', current_schema());
END $$;
"""
_ANY_MONTH = """
CREATE OR REPLACE FUNCTION techdeck_audit_ensure_partition(month date) RETURNS void LANGUAGE plpgsql AS $$
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
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION techdeck_audit_ensure_partition(date) SECURITY DEFINER '
        'SET search_path = %I, pg_temp', current_schema());
END $$;
"""


def upgrade() -> None:
    """Bound the months."""
    op.execute(_ENSURE_PARTITION)


def downgrade() -> None:
    """Let a writer make any month."""
    op.execute(_ANY_MONTH)
