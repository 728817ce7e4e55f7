# ruff: noqa: INP001 - alembic loads it by its path
"""Find the newest entries of a service without reading those of all others."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index, on every partition."""
    op.create_index("ix_audit_event_service", "audit_event", ["service", "occurred_at"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index("ix_audit_event_service", table_name="audit_event")
