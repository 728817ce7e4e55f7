# ruff: noqa: INP001 - alembic loads it by its path
"""What verification also holds against the log: reports, incidents, and which data keys there are."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

_VERIFIERS = "techdeck_audit_writer, techdeck_audit_auditor"
# Which keys there are, and not the keys: who proves that the log is whole need not be able to read it.
_GRANTS = (
    "SELECT ON compliance_report, security_incident, alembic_version TO {verifiers}",
    "SELECT (key_id, erased_at) ON audit_data_key TO {verifiers}",
)
_REVOKES = (
    "SELECT ON compliance_report, security_incident, alembic_version FROM {verifiers}",
    "SELECT (key_id, erased_at) ON audit_data_key FROM {verifiers}",
)


def upgrade() -> None:
    """Create the trigger, and grant where this user may."""
    op.execute(
        "CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON compliance_report "
        "FOR EACH STATEMENT EXECUTE FUNCTION techdeck_audit_refuse()"
    )
    op.execute("ALTER TABLE compliance_report ENABLE ALWAYS TRIGGER refuse_truncate")
    _change_grants("GRANT", _GRANTS)


def downgrade() -> None:
    """Undo it."""
    _change_grants("REVOKE", _REVOKES)
    op.execute("DROP TRIGGER refuse_truncate ON compliance_report")


def _change_grants(verb: str, grants: tuple[str, ...]) -> None:
    # The roles are there only where the migrations before could make them.
    there = sa.text("SELECT count(*) = 2 FROM pg_roles WHERE rolname = ANY(:names)")
    if not op.get_bind().execute(there, {"names": _VERIFIERS.split(", ")}).scalar_one():
        logger.warning(
            "the roles of the audit log are not there; see 'Roles' in docs/audit.md for the statements an "
            "administrator runs"
        )
        return
    for grant in grants:
        op.execute(f"{verb} {grant.format(verifiers=_VERIFIERS)}")
