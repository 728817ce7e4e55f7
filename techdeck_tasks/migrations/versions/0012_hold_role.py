# ruff: noqa: INP001 - alembic loads it by its path
"""Who holds and who prunes are two: the keeper loses the right to set and release legal holds."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

# To lock the table takes a right to change it, which the keeper has no more.
_LOCK_HOLDS = """
CREATE FUNCTION techdeck_audit_lock_holds() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE audit_hold IN SHARE MODE;
END $$;
DO $$ BEGIN
    EXECUTE format(
        'ALTER FUNCTION techdeck_audit_lock_holds() SECURITY DEFINER SET search_path = %I, pg_temp',
        current_schema());
    REVOKE ALL ON FUNCTION techdeck_audit_lock_holds() FROM PUBLIC;
END $$;
"""
_CREATE_ROLE = """
DO $$ BEGIN
    CREATE ROLE techdeck_audit_counsel NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
"""
_SPLIT = (
    "REVOKE INSERT, UPDATE ON audit_hold FROM techdeck_audit_keeper",
    "GRANT EXECUTE ON FUNCTION techdeck_audit_lock_holds() TO techdeck_audit_keeper",
    "GRANT SELECT ON audit_hold, audit_event TO techdeck_audit_counsel",
    "GRANT INSERT, UPDATE ON audit_hold TO techdeck_audit_counsel",
)
_UNITE = (
    "GRANT INSERT, UPDATE ON audit_hold TO techdeck_audit_keeper",
    "REVOKE ALL ON audit_hold, audit_event FROM techdeck_audit_counsel",
)


def upgrade() -> None:
    """Create the function, and the role where this user may."""
    op.execute(_LOCK_HOLDS)
    if not _may_make_roles():
        logger.warning(
            "this database user may not create roles: there is no techdeck_audit_counsel; see 'Roles' in "
            "docs/audit.md for the statements an administrator runs"
        )
        return
    op.execute(_CREATE_ROLE)
    for statement in _SPLIT:
        op.execute(statement)


def downgrade() -> None:
    """Give the keeper its rights back; the role may serve other databases, and stays."""
    if _may_make_roles():
        for statement in _UNITE:
            op.execute(statement)
    op.execute("DROP FUNCTION techdeck_audit_lock_holds()")


def _may_make_roles() -> bool:
    may = sa.text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    return bool(op.get_bind().execute(may).scalar_one())
