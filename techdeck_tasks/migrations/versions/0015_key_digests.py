# ruff: noqa: INP001 - alembic loads it by its path
"""Who verifies may compare the sealed data keys with those of the backup sink, without having them."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

logger = logging.getLogger(__name__)

_VERIFIERS = "techdeck_audit_writer, techdeck_audit_auditor"
_DIGESTS = """
CREATE FUNCTION techdeck_audit_key_digests(wanted uuid[])
RETURNS TABLE (key_id uuid, recipient_id text, digest bytea) LANGUAGE sql STABLE AS $$
    SELECT k.key_id, k.recipient_id, sha256(k.sealed_key) FROM audit_data_key k
    WHERE k.erased_at IS NULL AND k.key_id = ANY(wanted)
$$;
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION techdeck_audit_key_digests(uuid[]) SECURITY DEFINER '
        'SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION techdeck_audit_key_digests(uuid[]) FROM PUBLIC;
END $$;
"""


def upgrade() -> None:
    """Create the function, and grant it where this user may."""
    op.execute(_DIGESTS)
    # The roles are there only where the migrations before could make them.
    there = sa.text("SELECT count(*) = 2 FROM pg_roles WHERE rolname = ANY(:names)")
    if not op.get_bind().execute(there, {"names": _VERIFIERS.split(", ")}).scalar_one():
        logger.warning(
            "the roles of the audit log are not there; see 'Roles' in docs/audit.md for the statements an "
            "administrator runs"
        )
        return
    op.execute(f"GRANT EXECUTE ON FUNCTION techdeck_audit_key_digests(uuid[]) TO {_VERIFIERS}")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP FUNCTION techdeck_audit_key_digests(uuid[])")
