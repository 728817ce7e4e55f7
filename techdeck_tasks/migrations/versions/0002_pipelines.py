# ruff: noqa: INP001 - alembic loads it by its path
"""Runs and stages of pipelines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "pipeline_run",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("definition", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_id", sa.String(length=36), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))",
            name=op.f("ck_pipeline_run_finished"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_pipeline_run_state"),
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_pipeline_run")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_pipeline_run_idempotency_key")),
    )
    op.create_index("ix_pipeline_run_created_at", "pipeline_run", ["created_at"], unique=False)
    op.create_table(
        "stage_run",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("needs", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(length=155), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rows_done", sa.BigInteger(), nullable=True),
        sa.Column("rows_total", sa.BigInteger(), nullable=True),
        sa.Column("output", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("report", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error_id", sa.String(length=36), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'skipped', 'cancelled'))",
            name=op.f("ck_stage_run_finished"),
        ),
        sa.CheckConstraint(
            "(retry_at IS NOT NULL) = (state = 'retrying')", name=op.f("ck_stage_run_retry_at")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'queued', 'running', 'retrying', 'succeeded', 'failed', 'skipped', "
            "'cancelled')",
            name=op.f("ck_stage_run_state"),
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_stage_run_attempt")),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["pipeline_run.run_id"],
            name=op.f("fk_stage_run_run_id_pipeline_run"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "name", name=op.f("pk_stage_run")),
    )


def downgrade() -> None:
    """Drop the tables: runs in progress are lost."""
    op.drop_table("stage_run")
    op.drop_index("ix_pipeline_run_created_at", table_name="pipeline_run")
    op.drop_table("pipeline_run")
