"""The tables of runs and stages. They hold references, counts and redacted errors, never a row of data."""

from __future__ import annotations

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from techdeck_tasks.pipeline.runs.state import RunState, StageState
from techdeck_tasks.storage.database import Base
from techdeck_tasks.storage.storable import StorableDocument, StorableText

MAX_NAME_CHARS = 64
# Of a stage, or of a part of one: the stage's name with ~ and the part's number.
MAX_PART_NAME_CHARS = MAX_NAME_CHARS + 8
MAX_IDEMPOTENCY_KEY_CHARS = 200
MAX_CRON_CHARS = 100

_Moment = DateTime(timezone=True)
_Document = StorableDocument()


def _one_of(states: type[StrEnum]) -> str:
    return "state IN (" + ", ".join(f"'{state}'" for state in states) + ")"


class PipelineRun(Base):
    """One run of one definition. `run_id` is the id of the Celery task that asked for it."""

    __tablename__ = "pipeline_run"

    run_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    # The definition as JSON, sealed: it may name patients' files, columns and servers.
    definition: Mapped[bytes] = mapped_column(LargeBinary)
    # See RunState for which transition sets each state.
    state: Mapped[str] = mapped_column(String(16))
    # See definition.Priority.
    priority: Mapped[str] = mapped_column(String(8), server_default="normal")
    idempotency_key: Mapped[str | None] = mapped_column(String(MAX_IDEMPOTENCY_KEY_CHARS), unique=True)
    created_at: Mapped[datetime] = mapped_column(_Moment)
    started_at: Mapped[datetime | None] = mapped_column(_Moment)
    finished_at: Mapped[datetime | None] = mapped_column(_Moment)
    # When its artifacts were given up to the collector; it cannot be resumed after.
    artifacts_removed_at: Mapped[datetime | None] = mapped_column(_Moment)
    # The error of the stage that failed first.
    error_id: Mapped[str | None] = mapped_column(String(36))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(StorableText)

    __table_args__ = (
        CheckConstraint(_one_of(RunState), name="state"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name="finished"
        ),
        Index("ix_pipeline_run_created_at", "created_at"),
    )


class StageRun(Base):
    """One stage of one run, or one part of a stage: a stage of its own that the other waits for."""

    __tablename__ = "stage_run"

    run_id: Mapped[uuid.UUID] = mapped_column(
        Uuid, ForeignKey(PipelineRun.run_id, ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(MAX_PART_NAME_CHARS), primary_key=True)
    kind: Mapped[str] = mapped_column(String(MAX_NAME_CHARS))
    # Its place in the definition, from 0.
    position: Mapped[int] = mapped_column(Integer)
    needs: Mapped[list[str]] = mapped_column(_Document)
    # Of a part: the stage that was split, and where its piece of the data lies.
    part_of: Mapped[str | None] = mapped_column(String(MAX_NAME_CHARS))
    piece: Mapped[dict[str, Any] | None] = mapped_column(_Document)
    # See StageState for which transition sets each state.
    state: Mapped[str] = mapped_column(String(16))
    # How often the stage was resumed: messages of an earlier life have no effect.
    generation: Mapped[int] = mapped_column(Integer, server_default="0")
    # The attempt that runs or ran last; while queued or retrying, the one that comes. From 0.
    attempt: Mapped[int] = mapped_column(Integer)
    # The Celery task that holds the claim; a message of another task has no effect.
    task_id: Mapped[str | None] = mapped_column(String(155))
    # The definition's limit for one attempt; None: the worker's.
    timeout_seconds: Mapped[int | None] = mapped_column(Integer)
    # Until when its message or its worker must have been heard of, or it counts as lost.
    lease_until: Mapped[datetime | None] = mapped_column(_Moment)
    # How often its message was sent again since it was queued: each time it is waited for twice as long.
    resends: Mapped[int] = mapped_column(Integer, server_default="0")
    started_at: Mapped[datetime | None] = mapped_column(_Moment)
    finished_at: Mapped[datetime | None] = mapped_column(_Moment)
    rows_done: Mapped[int | None] = mapped_column(BigInteger)
    rows_total: Mapped[int | None] = mapped_column(BigInteger)
    # An ArtifactRef as JSON.
    output: Mapped[dict[str, Any] | None] = mapped_column(_Document)
    # Counts and rates, no values.
    report: Mapped[dict[str, Any] | None] = mapped_column(_Document)
    # The last error, kept after a retry succeeded: it tells what the stage recovered from.
    error_id: Mapped[str | None] = mapped_column(String(36))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(StorableText)
    # While retrying: when the next attempt is due.
    retry_at: Mapped[datetime | None] = mapped_column(_Moment)

    __table_args__ = (
        CheckConstraint(_one_of(StageState), name="state"),
        CheckConstraint("attempt >= 0", name="attempt"),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'skipped', 'cancelled'))",
            name="finished",
        ),
        CheckConstraint("(retry_at IS NOT NULL) = (state = 'retrying')", name="retry_at"),
        CheckConstraint(
            "(lease_until IS NOT NULL) = (state IN ('queued', 'running', 'retrying'))", name="lease"
        ),
        CheckConstraint("(piece IS NOT NULL) = (part_of IS NOT NULL)", name="part"),
        Index("ix_stage_run_lease_until", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    )


class PipelineSchedule(Base):
    """A definition that beat starts again and again."""

    __tablename__ = "pipeline_schedule"

    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARS), primary_key=True)
    cron: Mapped[str] = mapped_column(String(MAX_CRON_CHARS))
    # As PipelineRun.definition.
    definition: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(_Moment)
    # The slot that was started last; until the first one, when it was added.
    last_slot: Mapped[datetime] = mapped_column(_Moment)
