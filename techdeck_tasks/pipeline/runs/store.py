"""State of runs and stages in PostgreSQL.

Every change is a compare-and-set: it names the states it may leave, and tells whether it happened. Whatever
concerns several stages of a run (claiming, finishing, finding what is ready) first locks the run's row, so
that two finishers at once take turns, and each stage becomes ready exactly once. When PostgreSQL is away,
every method raises ServiceUnavailableError and nothing has changed, unless the connection broke during
COMMIT; every method may therefore be called again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import PipelineExecutionError, TechDeckError, ValidationError
from techdeck_tasks.pipeline.data.sealed_file import Cipher
from techdeck_tasks.pipeline.definition import PipelineDefinition
from techdeck_tasks.pipeline.models import MAX_IDEMPOTENCY_KEY_CHARS, PipelineRun, StageRun
from techdeck_tasks.pipeline.runs.hold import Claimed, Hold
from techdeck_tasks.pipeline.runs.new_run import run_row, stage_rows
from techdeck_tasks.pipeline.runs.parts import (
    AheadResult,
    add_ahead,
    add_parts,
    part_of_row,
    part_values,
)
from techdeck_tasks.pipeline.runs.reader import RunReader, definition_aad
from techdeck_tasks.pipeline.runs.state import (
    FINAL_RUN_STATES,
    WAITING_STAGE_STATES,
    RunState,
    StageState,
    run_sources,
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
    moved_stage,
    one_stage,
    queue_ready,
    run_key,
    settle,
)
from techdeck_tasks.storage.database import transaction

LEASE = timedelta(seconds=60)


class PipelineStore(RunReader):
    """Reads and changes runs. Safe to share between threads; each call is one transaction.

    Args:
        engine: the database.
        cipher: seals definitions.
        clock: the time; the clocks of all workers must agree to a fraction of `lease`.
        lease: so long a queued stage's message, or a running stage's worker, need not be heard of before the
            stage counts as lost.
        parts_at_once: so many parts of one run may wait for or occupy workers, that others get their turn.
    """

    def __init__(
        self,
        engine: Engine,
        cipher: Cipher,
        clock: Clock,
        lease: timedelta = LEASE,
        parts_at_once: int = PARTS_AT_ONCE,
    ) -> None:
        super().__init__(engine, cipher)
        self._clock = clock
        self.lease = lease
        self._parts_at_once = parts_at_once

    def create_run(
        self, run_id: str, definition: PipelineDefinition, idempotency_key: str | None = None
    ) -> tuple[str, bool]:
        """Store a new run with its stages; return its id, and whether it was created now.

        A second call with the same id, or with a key that already has a run, changes nothing.

        Raises:
            ValidationError: the id is no UUID, or the key is too long or belongs to another definition.
        """
        key = run_key(run_id)
        if idempotency_key is not None and not 0 < len(idempotency_key) <= MAX_IDEMPOTENCY_KEY_CHARS:
            raise ValidationError(
                f"the idempotency key has {len(idempotency_key)} characters; "
                f"1 to {MAX_IDEMPOTENCY_KEY_CHARS} are allowed",
                field="idempotency_key",
            )
        document = json.dumps(definition.to_dict(), separators=(",", ":"), allow_nan=False).encode()
        row = {
            **run_row(key, definition, self._clock.now()),
            "definition": self._cipher.seal(document, definition_aad(key)),
            "idempotency_key": idempotency_key,
        }
        with transaction(self._engine) as connection:
            # Without a conflict target both the run id and the idempotency key count; a concurrent insert
            # of either is waited for.
            created = connection.execute(
                insert(PipelineRun).values(row).on_conflict_do_nothing().returning(PipelineRun.run_id)
            ).scalar()
            if created is not None:
                connection.execute(insert(StageRun), stage_rows(key, definition))
                return str(created), True
            mine = PipelineRun.run_id == key
            if idempotency_key is not None:
                mine = or_(mine, PipelineRun.idempotency_key == idempotency_key)
            found = connection.execute(select(PipelineRun.run_id, PipelineRun.definition).where(mine)).first()
        if found is None:  # the row that was in the way was deleted meanwhile
            raise PipelineExecutionError(
                f"run {run_id} could not be stored; send it again", pipeline_id=run_id
            )
        if self._opened(found.run_id, found.definition) != definition:
            raise ValidationError(
                f"this idempotency key or task id belongs to run {found.run_id} of another definition; "
                "use a new key",
                field="idempotency_key",
            )
        return str(found.run_id), False

    def mark_ready(self, run_id: str) -> list[ReadyStage]:
        """Queue the pending stages whose needs have all succeeded; return each exactly once."""
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            if lock_run(connection, key) in FINAL_RUN_STATES:
                return []
            return queue_ready(connection, key, self._terms())

    def claim_stage(
        self, run_id: str, stage: str, attempt: int, task_id: str, generation: int = 0
    ) -> Claimed | None:
        """Take the stage for one attempt of one task; None where somebody has, or had, it already.

        A queued stage is taken by the first to come, unless its attempt is one that was lost. After that only
        the same task may take it, for a later attempt: that is a retry, scheduled or because the process of
        the earlier attempt died. The claim is a lease: `renew_stage` keeps it.
        """
        key = run_key(run_id)
        now = self._clock.now()
        same_task = StageRun.task_id == task_id
        claimable = and_(
            StageRun.generation == generation,
            or_(
                and_(StageRun.state == StageState.QUEUED, StageRun.attempt <= attempt),
                and_(StageRun.state == StageState.RETRYING, same_task, StageRun.attempt <= attempt),
                and_(StageRun.state == StageState.RUNNING, same_task, StageRun.attempt < attempt),
            ),
        )
        with transaction(self._engine) as connection:
            run = lock_run(connection, key)
            if run not in (RunState.QUEUED, RunState.RUNNING):
                return None
            row = moved_stage(
                connection,
                key,
                stage,
                StageState.RUNNING,
                claimable,
                attempt=attempt,
                task_id=task_id,
                started_at=func.coalesce(StageRun.started_at, now),
                lease_until=self._lease_end(),
                retry_at=None,
            )
            if row is None:
                return None
            if run is RunState.QUEUED:
                connection.execute(
                    update(PipelineRun)
                    .where(PipelineRun.run_id == key, PipelineRun.state.in_(run_sources(RunState.RUNNING)))
                    .values(state=RunState.RUNNING, started_at=func.coalesce(PipelineRun.started_at, now))
                )
            return Claimed(None if row["part_of"] is None else part_of_row(row))

    def renew_stage(self, run_id: str, stage: str, attempt: int, task_id: str) -> Hold:
        """Keep the claim of a running attempt for another lease, and tell how it stands."""
        key = run_key(run_id)
        statement = (
            update(StageRun)
            .where(one_stage(key, stage), held_by(attempt, task_id), PipelineRun.run_id == StageRun.run_id)
            .values(lease_until=self._lease_end())
            .returning(PipelineRun.state)
        )
        with transaction(self._engine) as connection:
            state = connection.scalar(statement)
        if state is None:
            return Hold.LOST
        return Hold.CANCELLING if state == RunState.CANCELLING else Hold.HELD

    def await_stage(self, run_id: str, stage: str, generation: int, delay: timedelta) -> None:
        """Note that a waiting stage's message comes again after `delay`: until then it is not lost."""
        with transaction(self._engine) as connection:
            connection.execute(
                update(StageRun)
                .where(
                    one_stage(run_key(run_id), stage),
                    StageRun.state.in_(WAITING_STAGE_STATES),
                    StageRun.generation == generation,
                )
                .values(lease_until=self._lease_end() + delay)
            )

    def progress(self, run_id: str, stage: str, rows_done: int, rows_total: int | None = None) -> None:
        """Note how many rows a running stage has done, of how many."""
        with transaction(self._engine) as connection:
            connection.execute(
                update(StageRun)
                .where(one_stage(run_key(run_id), stage), StageRun.state == StageState.RUNNING)
                .values(rows_done=rows_done, rows_total=func.coalesce(rows_total, StageRun.rows_total))
            )

    def retry_stage(
        self,
        run_id: str,
        stage: str,
        error: TechDeckError,
        *,
        attempt: int,
        next_attempt: int,
        task_id: str | None,
        delay: timedelta,
    ) -> bool:
        """Note that `attempt` failed and `next_attempt` is due after `delay`; False if it has ended.

        `next_attempt` equals `attempt` where the task only waits for a breaker. `task_id` None means: any.
        In a run that is being cancelled the stage ends instead.
        """
        key = run_key(run_id)
        held = StageRun.attempt == attempt
        if task_id is not None:
            held = and_(held, StageRun.task_id == task_id)
        with transaction(self._engine) as connection:
            if lock_run(connection, key) is RunState.CANCELLING:
                end_stage(
                    connection,
                    key,
                    stage,
                    StageState.CANCELLED,
                    held,
                    self._terms(),
                    **error_values(error),
                )
                return False
            retry_at = self._clock.now() + delay
            return move_stage(
                connection,
                key,
                stage,
                StageState.RETRYING,
                held,
                attempt=next_attempt,
                retry_at=retry_at,
                lease_until=retry_at + self.lease,
                **error_values(error),
            )

    def split_stage(
        self,
        run_id: str,
        stage: str,
        pieces: Sequence[Mapping[str, Any]],
        *,
        attempt: int,
        task_id: str,
        rows: int | None = None,
    ) -> Settled:
        """Let a stage wait for its parts, one a piece; parts that are there already stay as they are.

        `rows` is how many rows all parts have together, if that is known.

        Only the holder of the claim is heard, as in `succeed_stage`.
        """
        key = run_key(run_id)
        held = held_by(attempt, task_id)
        total = func.coalesce(rows, StageRun.rows_total)
        with transaction(self._engine) as connection:
            if lock_run(connection, key) is RunState.CANCELLING:
                end_stage(connection, key, stage, StageState.CANCELLED, held, self._terms())
                return Settled(accepted=False)
            whole = moved_stage(
                connection, key, stage, StageState.SPLIT, held, lease_until=None, rows_total=total
            )
            if whole is None:
                return Settled(accepted=False)
            add_parts(
                connection,
                [part_values(whole, number, piece) for number, piece in enumerate(pieces)],
            )
            return settle(connection, key, self._terms())

    def succeed_stage(
        self,
        run_id: str,
        stage: str,
        *,
        attempt: int,
        task_id: str,
        output: Mapping[str, Any] | None,
        report: Mapping[str, Any] | None,
        rows: int | None,
        ahead: Sequence[AheadResult] = (),
    ) -> Settled:
        """Deliver a stage's output; queue what is ready now, or finish the run.

        Only the holder of the claim is heard: what an attempt delivers after it was given up, or after its
        run was called off, is refused. `ahead` are the results of parts of later stages that came with it.
        """
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            if lock_run(connection, key) is RunState.CANCELLING:
                end_stage(
                    connection, key, stage, StageState.CANCELLED, held_by(attempt, task_id), self._terms()
                )
                return Settled(accepted=False)
            settled = end_stage(
                connection,
                key,
                stage,
                StageState.SUCCEEDED,
                held_by(attempt, task_id),
                self._terms(),
                output=None if output is None else dict(output),
                report=None if report is None else dict(report),
                rows_done=func.coalesce(rows, StageRun.rows_done),
                rows_total=func.coalesce(rows, StageRun.rows_total),
            )
            if settled.accepted:
                add_ahead(connection, key, ahead, self._clock.now())
            return settled

    def fail_stage(
        self,
        run_id: str,
        stage: str,
        error: TechDeckError,
        task_id: str | None = None,
        generation: int | None = None,
    ) -> Settled:
        """End a stage for good: skip what depends on it; finish the run where nothing else can run.

        A claimed stage is failed only by its own task; `task_id` or `generation` None means: any.
        """
        key = run_key(run_id)
        held: ColumnElement[bool] = (
            StageRun.name == stage
            if task_id is None
            else or_(StageRun.state == StageState.QUEUED, StageRun.task_id == task_id)
        )
        if generation is not None:
            held = and_(held, StageRun.generation == generation)
        with transaction(self._engine) as connection:
            lock_run(connection, key)
            return fail_stage(connection, key, stage, error, held, self._terms())

    def stop_stage(self, run_id: str, stage: str, attempt: int, task_id: str) -> bool:
        """End a running attempt whose run is being cancelled; False where it no longer holds the stage."""
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            if lock_run(connection, key) is not RunState.CANCELLING:
                return False
            held = held_by(attempt, task_id)
            return end_stage(connection, key, stage, StageState.CANCELLED, held, self._terms()).accepted

    def note_error(self, run_id: str, error_id: str, error_code: str, message: str) -> None:
        """Note an error on a run that has none yet; its state stays what its stages make it.

        Raises:
            ValidationError: `run_id` is no UUID.
        """
        statement = (
            update(PipelineRun)
            .where(PipelineRun.run_id == run_key(run_id), PipelineRun.error_id.is_(None))
            .values(error_id=error_id, error_code=error_code, error_message=message)
        )
        with transaction(self._engine) as connection:
            connection.execute(statement)

    def _lease_end(self) -> datetime:
        return self._clock.now() + self.lease

    def _terms(self) -> Terms:
        now = self._clock.now()
        return Terms(now, now + self.lease, self._parts_at_once)
