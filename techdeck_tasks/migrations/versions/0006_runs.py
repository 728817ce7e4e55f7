# ruff: noqa: INP001 - alembic loads it by its path
"""Runs that are cancelled, resumed, recovered after losses, and started by a schedule."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LEASED = "(lease_until IS NOT NULL) = (state IN ('queued', 'running', 'retrying'))"


def upgrade() -> None:
    """Add the columns and the schedules; what is under way is looked at by the next reconciliation."""
    op.drop_constraint(op.f("ck_pipeline_run_state"), "pipeline_run", type_="check")
    op.create_check_constraint(
        op.f("ck_pipeline_run_state"),
        "pipeline_run",
        "state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')",
    )
    op.add_column(
        "pipeline_run", sa.Column("priority", sa.String(length=8), server_default="normal", nullable=False)
    )
    op.add_column(
        "pipeline_run", sa.Column("artifacts_removed_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column("stage_run", sa.Column("generation", sa.Integer(), server_default="0", nullable=False))
    op.add_column("stage_run", sa.Column("timeout_seconds", sa.Integer(), nullable=True))
    op.add_column("stage_run", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("stage_run", sa.Column("resends", sa.Integer(), server_default="0", nullable=False))
    op.execute(
        "UPDATE stage_run SET lease_until = greatest(now(), retry_at) "
        "WHERE state IN ('queued', 'running', 'retrying')"
    )
    op.create_check_constraint(op.f("ck_stage_run_lease"), "stage_run", _LEASED)
    op.create_index(
        "ix_stage_run_lease_until",
        "stage_run",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_table(
        "pipeline_schedule",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("cron", sa.String(length=100), nullable=False),
        sa.Column("definition", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_slot", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pipeline_schedule")),
    )


def downgrade() -> None:
    """Drop them; runs that are being cancelled are cancelled by that."""
    op.drop_table("pipeline_schedule")
    op.drop_index("ix_stage_run_lease_until", table_name="stage_run")
    op.drop_constraint(op.f("ck_stage_run_lease"), "stage_run", type_="check")
    for column in ("resends", "lease_until", "timeout_seconds", "generation"):
        op.drop_column("stage_run", column)
    for column in ("artifacts_removed_at", "priority"):
        op.drop_column("pipeline_run", column)
    op.execute("UPDATE pipeline_run SET state = 'cancelled', finished_at = now() WHERE state = 'cancelling'")
    op.drop_constraint(op.f("ck_pipeline_run_state"), "pipeline_run", type_="check")
    op.create_check_constraint(
        op.f("ck_pipeline_run_state"),
        "pipeline_run",
        "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
    )
