"""Runs that are called off, taken up again, or looked after because somebody is no longer heard of.

As in `store`, every change is a compare-and-set under the run's lock.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, select, update

from techdeck_tasks.audit.event import new_event_id
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import PipelineExecutionError, TechDeckError
from techdeck_tasks.pipeline.models import PipelineRun, StageRun
from techdeck_tasks.pipeline.runs.state import (
    CANCELLABLE_RUN_STATES,
    FINAL_RUN_STATES,
    RESUMABLE_RUN_STATES,
    WAITING_STAGE_STATES,
    RunState,
    StageState,
    stage_sources,
)
from techdeck_tasks.pipeline.runs.statements import (
    PARTS_AT_ONCE,
    ReadyStage,
    Settled,
    Terms,
    end_stage,
    error_values,
    fail_stage,
    held_by,
    lock_run,
    move_stage,
    one_stage,
    queue_ready,
    ready_stages,
    run_key,
    settle,
)
from techdeck_tasks.storage.database import transaction

MAX_DOUBLINGS = 8
_BATCH = 500


@dataclass(frozen=True, slots=True)
class OverdueStage:
    """A stage that nobody was heard of in time: its message, or its worker."""

    run_id: str
    name: str
    kind: str
    state: StageState
    generation: int
    attempt: int
    task_id: str | None
    lease_until: datetime

    @property
    def event_id(self) -> uuid.UUID:
        """The id of the audit event that tells of the loss; the same for whoever finds it, however often."""
        name = f"{self.run_id}|{self.name}|{self.generation}|{self.attempt}|{self.task_id}"
        digest = hashlib.sha256(name.encode()).digest()
        milliseconds = int(self.lease_until.timestamp() * 1000)
        return new_event_id(milliseconds * 1_000_000, random=int.from_bytes(digest[:8]))


class RunControl:
    """Cancels, resumes and recovers runs. Safe to share between threads; each call is one transaction.

    Args:
        engine: the database.
        clock: the time.
        lease: as the `PipelineStore`'s.
        parts_at_once: likewise.
    """

    def __init__(
        self, engine: Engine, clock: Clock, lease: timedelta, parts_at_once: int = PARTS_AT_ONCE
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._lease = lease
        self._parts_at_once = parts_at_once

    # -- cancel and resume --------------------------------------------------------------------------

    def cancel_run(self, run_id: str) -> RunState:
        """Call a run off: what waits is cancelled at once, what runs is asked to stop; return its state.

        Cancelling a run that is being cancelled, or is cancelled, changes nothing.

        Raises:
            PipelineExecutionError: there is no such run, or it ended before.
        """
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            state = lock_run(connection, key)
            if state in (RunState.CANCELLING, RunState.CANCELLED):
                return state
            if state not in CANCELLABLE_RUN_STATES:
                raise PipelineExecutionError(
                    f"run {run_id} has {state} already; there is nothing to cancel", pipeline_id=run_id
                )
            now = self._clock.now()
            waiting = stage_sources(StageState.CANCELLED) - {StageState.RUNNING}
            connection.execute(
                update(StageRun)
                .where(StageRun.run_id == key, StageRun.state.in_(waiting))
                .values(state=StageState.CANCELLED, finished_at=now, lease_until=None, retry_at=None)
            )
            if state is RunState.RUNNING:
                connection.execute(
                    update(PipelineRun)
                    .where(PipelineRun.run_id == key, PipelineRun.state == state)
                    .values(state=RunState.CANCELLING)
                )
            settled = settle(connection, key, self._terms())
            return settled.run_state or state

    def resume_run(self, run_id: str) -> list[ReadyStage]:
        """Make a failed or cancelled run go on: what succeeded stays, everything else begins anew.

        Returns the stages that may be sent.

        Raises:
            PipelineExecutionError: there is no such run, it did not fail, or its artifacts were removed.
        """
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            state = lock_run(connection, key)
            removed = connection.scalar(
                select(PipelineRun.artifacts_removed_at).where(PipelineRun.run_id == key)
            )
            if state not in RESUMABLE_RUN_STATES:
                raise PipelineExecutionError(
                    f"run {run_id} is {state}; only a failed or cancelled run can be resumed",
                    pipeline_id=run_id,
                )
            if removed is not None:
                raise PipelineExecutionError(
                    f"the artifacts of run {run_id} were removed at {removed:%Y-%m-%d %H:%M} UTC, after "
                    "TECHDECK_ARTIFACT_RETENTION_HOURS; run the pipeline again",
                    pipeline_id=run_id,
                )
            connection.execute(
                update(PipelineRun)
                .where(PipelineRun.run_id == key)
                .values(
                    state=RunState.QUEUED,
                    finished_at=None,
                    error_id=None,
                    error_code=None,
                    error_message=None,
                )
            )
            connection.execute(
                update(StageRun)
                .where(StageRun.run_id == key, StageRun.state.in_(stage_sources(StageState.PENDING)))
                .values(
                    state=StageState.PENDING,
                    generation=StageRun.generation + 1,
                    attempt=0,
                    task_id=None,
                    started_at=None,
                    finished_at=None,
                    rows_done=None,
                    rows_total=None,
                )
            )
            return queue_ready(connection, key, self._terms())

    # -- losses -------------------------------------------------------------------------------------

    def overdue_stages(self) -> list[OverdueStage]:
        """Return the stages whose lease has ended, the longest overdue first; at most 500."""
        statement = (
            select(
                StageRun.run_id,
                StageRun.name,
                StageRun.kind,
                StageRun.state,
                StageRun.generation,
                StageRun.attempt,
                StageRun.task_id,
                StageRun.lease_until,
            )
            .where(StageRun.lease_until < self._clock.now())
            .order_by(StageRun.lease_until)
            .limit(_BATCH)
        )
        with transaction(self._engine) as connection:
            return [
                OverdueStage(**{**row, "run_id": str(row["run_id"]), "state": StageState(row["state"])})
                for row in connection.execute(statement).mappings()
            ]

    def resend_stage(self, overdue: OverdueStage) -> list[ReadyStage]:
        """Queue a waiting stage for another message; nothing where somebody was heard of meanwhile.

        No attempt is spent. Its message may only be late behind many others, so that each one more is waited
        for twice as long.
        """
        key = uuid.UUID(overdue.run_id)
        with transaction(self._engine) as connection:
            resends = connection.scalar(select(StageRun.resends).where(one_stage(key, overdue.name))) or 0
            waited = self._lease * 2 ** min(resends + 1, MAX_DOUBLINGS)
            changed = connection.execute(
                update(StageRun)
                .where(
                    one_stage(key, overdue.name),
                    StageRun.state.in_(WAITING_STAGE_STATES),
                    _unchanged(overdue),
                )
                .values(
                    state=StageState.QUEUED,
                    retry_at=None,
                    lease_until=self._clock.now() + waited,
                    resends=resends + 1,
                )
            )
            if not changed.rowcount:
                return []
            return ready_stages(connection, one_stage(key, overdue.name))

    def lose_attempt(
        self,
        overdue: OverdueStage,
        error: TechDeckError,
        *,
        next_attempt: int | None,
        record: Callable[[], object],
    ) -> Settled:
        """Take a running stage from an attempt that is lost.

        Args:
            overdue: the attempt, as `overdue_stages` found it.
            error: what is told of it.
            next_attempt: the attempt that follows; None: the stage has failed.
            record: puts the loss on record; called once the loss is certain and before it is committed, so
                that it may come twice, under the same event id, but is never left out.

        In a run that is being cancelled the stage ends.
        """
        key = uuid.UUID(overdue.run_id)
        held = and_(held_by(overdue.attempt, str(overdue.task_id)), _unchanged(overdue))
        with transaction(self._engine) as connection:
            run = lock_run(connection, key)
            terms = self._terms()
            if run is RunState.CANCELLING:
                settled = end_stage(
                    connection, key, overdue.name, StageState.CANCELLED, held, terms, **error_values(error)
                )
            elif next_attempt is None:
                settled = fail_stage(connection, key, overdue.name, error, held, terms)
            else:
                moved = move_stage(
                    connection,
                    key,
                    overdue.name,
                    StageState.QUEUED,
                    held,
                    attempt=next_attempt,
                    task_id=None,
                    lease_until=terms.lease_until,
                    resends=0,
                    **error_values(error),
                )
                again = ready_stages(connection, one_stage(key, overdue.name)) if moved else []
                settled = Settled(accepted=moved, ready=tuple(again), run_state=run)
            if settled.accepted:
                record()
            return settled

    # -- artifacts ----------------------------------------------------------------------------------

    def give_up_artifacts(self, before: datetime) -> list[str]:
        """Mark the runs that ended before `before`, so that they cannot be resumed; return their ids."""
        now = self._clock.now()
        due = (
            select(PipelineRun.run_id)
            .where(
                PipelineRun.state.in_(FINAL_RUN_STATES),
                PipelineRun.finished_at < before,
                PipelineRun.artifacts_removed_at.is_(None),
            )
            .order_by(PipelineRun.finished_at)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(PipelineRun)
            .where(PipelineRun.run_id.in_(due.scalar_subquery()))
            .values(artifacts_removed_at=now)
            .returning(PipelineRun.run_id)
        )
        with transaction(self._engine) as connection:
            return [str(run_id) for run_id in connection.scalars(statement)]

    def keep_artifacts(self, run_ids: Iterable[str]) -> None:
        """Take back what `give_up_artifacts` marked, where the artifacts could not be removed."""
        keys = [uuid.UUID(run_id) for run_id in run_ids]
        with transaction(self._engine) as connection:
            connection.execute(
                update(PipelineRun).where(PipelineRun.run_id.in_(keys)).values(artifacts_removed_at=None)
            )

    def _terms(self) -> Terms:
        now = self._clock.now()
        return Terms(now, now + self._lease, self._parts_at_once)


def _unchanged(overdue: OverdueStage) -> ColumnElement[bool]:
    return and_(StageRun.lease_until == overdue.lease_until, StageRun.generation == overdue.generation)
