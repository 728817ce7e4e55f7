# ruff: noqa: INP001 - alembic loads it by its path
"""Stages that are split into parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_BEFORE = "'pending', 'queued', 'running', 'retrying'"
_FINAL = "'succeeded', 'failed', 'skipped', 'cancelled'"


def upgrade() -> None:
    """Add the columns and the state."""
    op.alter_column("stage_run", "name", type_=sa.String(length=72))
    op.add_column("stage_run", sa.Column("part_of", sa.String(length=64), nullable=True))
    op.add_column("stage_run", sa.Column("piece", postgresql.JSONB(none_as_null=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_stage_run_part"), "stage_run", "(piece IS NOT NULL) = (part_of IS NOT NULL)"
    )
    _allow(f"{_BEFORE}, 'split', {_FINAL}")


def downgrade() -> None:
    """Forget the parts; a stage that waits for its own begins again, as if its worker were lost."""
    op.execute("DELETE FROM stage_run WHERE part_of IS NOT NULL")
    op.execute("UPDATE stage_run SET state = 'queued', lease_until = now() WHERE state = 'split'")
    _allow(f"{_BEFORE}, {_FINAL}")
    op.drop_constraint(op.f("ck_stage_run_part"), "stage_run", type_="check")
    op.drop_column("stage_run", "piece")
    op.drop_column("stage_run", "part_of")
    op.alter_column("stage_run", "name", type_=sa.String(length=64))


def _allow(states: str) -> None:
    op.drop_constraint(op.f("ck_stage_run_state"), "stage_run", type_="check")
    op.create_check_constraint(op.f("ck_stage_run_state"), "stage_run", f"state IN ({states})")
