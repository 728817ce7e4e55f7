"""Runs pipelines: starts them, runs one stage, and carries on from its end. Every call may come twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import (
    RetryRule,
    ServiceUnavailableError,
    TechDeckError,
    ValidationError,
)
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.data.workspace import private_workspace
from techdeck_tasks.pipeline.definition import PipelineDefinition
from techdeck_tasks.pipeline.runs.attempt import Attempt, Cut, Done, places_of
from techdeck_tasks.pipeline.runs.claim import Claim, StageStopped
from techdeck_tasks.pipeline.runs.parts import Part
from techdeck_tasks.pipeline.runs.state import StageState
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.pipeline.runs.store import PipelineStore

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 1.0
_DEFINITIONS_REMEMBERED = 16


class Dispatcher(Protocol):
    """Hands a stage to whoever runs stages."""

    def send(self, run_id: str, stage: ReadyStage) -> None:
        """Let some worker call `PipelineEngine.run_stage`.

        Raises:
            ConnectionFailedError: nothing was sent; sending again is harmless, even if it was.
        """


class PipelineEngine:
    """Ties state, artifacts and messages together.

    Messages may be doubled, late, or for a run that ended: the store's compare-and-set decides. When
    PostgreSQL is away ServiceUnavailableError is raised, and the caller tries again.

    Args:
        store: the state of runs.
        artifacts: the data handed from stage to stage.
        dispatcher: sends stages to workers.
        clock: the time.
        stage_limit: the longest that an attempt may take.
        upload_folder: where the service keeps files that were sent to it.
        boundary: where data may lie.
    """

    def __init__(
        self,
        store: PipelineStore,
        artifacts: ArtifactStore,
        dispatcher: Dispatcher,
        clock: Clock,
        stage_limit: timedelta = timedelta(hours=1),
        *,
        upload_folder: Path = Path(".techdeck/uploads"),
        boundary: Boundary | None = None,
    ) -> None:
        self.store = store
        self._artifacts = artifacts
        self._dispatcher = dispatcher
        self._clock = clock
        self._stage_limit = stage_limit
        self._upload_folder = upload_folder
        self._boundary = boundary or Boundary()
        # They never change, and each part of a run needs them.
        self._definition = lru_cache(_DEFINITIONS_REMEMBERED)(store.get_definition)
        self._places = lru_cache(_DEFINITIONS_REMEMBERED)(
            lambda run_id: tuple(places_of(self._definition(run_id)))
        )

    def start(
        self, run_id: str, definition: PipelineDefinition, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Store the run and send its first stages; return ``{"run_id", "state"}``.

        Called again (the message came twice, sending broke off, the idempotency key has a run already) it
        sends again what still waits for a worker.

        Raises:
            AuthorizationError: its source or a destination is where no data may be.
        """
        self.check(definition)
        run_id, _ = self.store.create_run(run_id, definition, idempotency_key)
        self.store.mark_ready(run_id)
        self.send(run_id, self.store.queued_stages(run_id))
        return {"run_id": run_id, "state": str(self.store.get_run(run_id).state)}

    def check(self, definition: PipelineDefinition) -> None:
        """Refuse what this service would not run.

        Raises:
            ValidationError: a stage may take longer than a task.
            AuthorizationError: its source or a destination is where no data may be.
        """
        self._check_timeouts(definition)
        self._boundary.check(places_of(definition))

    def start_failed(self, run_id: str, error: TechDeckError) -> None:
        """Fail what a run could not send; no effect on claimed stages, or on a run that was never stored."""
        for waiting in self.store.queued_stages(run_id):
            # The task that starts a run bears its id and holds no claim: only waiting stages are failed.
            self.store.fail_stage(run_id, waiting.name, error, task_id=run_id)

    def run_stage(
        self, run_id: str, stage_name: str, attempt: int, task_id: str, generation: int = 0
    ) -> dict[str, Any]:
        """Run one attempt of a stage and send what is ready after it.

        Args:
            run_id: the run.
            stage_name: the stage's name in the definition.
            attempt: from 0, as Celery counts the task's retries.
            task_id: the id of the Celery task.
            generation: how often the stage was resumed, as its message says.

        Returns:
            A JSON-safe summary: run_id, stage, state, attempt, claimed, rows. `claimed` is False where
            another message has, or had, the stage, or where the run was cancelled: nothing came of it.

        Raises:
            TechDeckError: the stage failed; the caller decides on a retry.
        """
        claimed = self.store.claim_stage(run_id, stage_name, attempt, task_id, generation)
        if claimed is None:
            return self._already_taken(run_id, stage_name)
        try:
            done = self._execute(run_id, stage_name, claimed.part, attempt, task_id)
        except StageStopped:
            self.store.stop_stage(run_id, stage_name, attempt, task_id)
            return self._already_taken(run_id, stage_name)
        state, rows = StageState.SPLIT, None
        if isinstance(done, Cut):
            settled = self.store.split_stage(
                run_id, stage_name, done.pieces, attempt=attempt, task_id=task_id, rows=done.rows
            )
        else:
            output = done.output
            state, rows = StageState.SUCCEEDED, None if output is None else output.rows
            settled = self.store.succeed_stage(
                run_id,
                stage_name,
                attempt=attempt,
                task_id=task_id,
                output=None if output is None else output.to_dict(),
                report=done.report,
                rows=rows,
                ahead=done.ahead,
            )
        if not settled.accepted:
            return self._already_taken(run_id, stage_name)
        self.send(run_id, settled.ready)
        return _summary(run_id, stage_name, state, attempt, claimed=True, rows=rows)

    def stage_retrying(
        self,
        run_id: str,
        stage_name: str,
        error: TechDeckError,
        *,
        attempt: int,
        task_id: str | None,
        delay: timedelta,
    ) -> None:
        """Note that `attempt` failed and another follows after `delay`; no effect if it has ended."""
        # Waiting for a breaker spends no attempt: the same one comes again.
        following = attempt if error.retry_rule is RetryRule.PARK else attempt + 1
        self.store.retry_stage(
            run_id, stage_name, error, attempt=attempt, next_attempt=following, task_id=task_id, delay=delay
        )

    def stage_failed(
        self,
        run_id: str,
        stage_name: str,
        error: TechDeckError,
        task_id: str | None = None,
        generation: int | None = None,
    ) -> None:
        """End a stage for good: its dependents are skipped, independent branches go on."""
        settled = self.store.fail_stage(run_id, stage_name, error, task_id, generation)
        self.send(run_id, settled.ready)

    def send(self, run_id: str, stages: Iterable[ReadyStage]) -> None:
        """Send stages to whoever runs them.

        Raises:
            ConnectionFailedError: one could not be sent; sending all of them again is harmless.
        """
        for ready in stages:
            self._dispatcher.send(run_id, ready)

    def _check_timeouts(self, definition: PipelineDefinition) -> None:
        limit_s = int(self._stage_limit.total_seconds())
        for spec in definition.stages:
            if spec.timeout_seconds is not None and spec.timeout_seconds > limit_s:
                raise ValidationError(
                    f"stage {spec.name!r} asks for {spec.timeout_seconds} s, and a task may take {limit_s}; "
                    "lower its timeout_seconds or raise TECHDECK_TASK_TIME_LIMIT_SECONDS",
                    field="timeout_seconds",
                )

    def _execute(
        self, run_id: str, stage_name: str, part: Part | None, attempt: int, task_id: str
    ) -> Done | Cut:
        definition = self._definition(run_id)
        spec = definition.stage(stage_name if part is None else part.stage)
        # Again, in the process that reads and writes: of links, and of its own folders, only it can tell.
        self._boundary.check(self._places(run_id))
        limit_s = spec.timeout_seconds or self._stage_limit.total_seconds()
        claim = Claim(
            self.store,
            self._clock,
            run_id=run_id,
            stage=stage_name,
            attempt=attempt,
            task_id=task_id,
            limit_s=limit_s,
        )
        with claim, private_workspace() as workspace:
            work = Attempt(
                run_id=run_id,
                definition=definition,
                number=attempt,
                outputs=self._outputs(run_id, spec.needs),
                artifacts=self._artifacts,
                workspace=workspace,
                upload_folder=self._upload_folder,
                boundary=self._boundary,
                report_progress=self._progress(run_id, stage_name),
                check_cancelled=claim.check,
            )
            if part is not None:
                done: Done | Cut = work.part(part)
            else:
                done = work.stage(spec, self.store.get_parts(run_id, stage_name))
            claim.check()
        return done

    def _outputs(self, run_id: str, stages: Collection[str]) -> dict[str, ArtifactRef]:
        found = self.store.get_outputs(run_id, stages)
        return {stage: ArtifactRef.from_dict(output) for stage, output in found.items()}

    def _progress(self, run_id: str, stage_name: str) -> Callable[[int, int | None], None]:
        last = self._clock.monotonic()

        def report(rows_done: int, rows_total: int | None = None) -> None:
            nonlocal last
            now = self._clock.monotonic()
            if now - last < PROGRESS_INTERVAL_S:
                return
            last = now
            try:
                self.store.progress(run_id, stage_name, rows_done, rows_total)
            except ServiceUnavailableError as error:
                # Progress is for the eye: the stage's own result is what must not be lost.
                logger.warning("progress of stage %s of run %s not stored: %s", stage_name, run_id, error)

        return report

    def _already_taken(self, run_id: str, stage_name: str) -> dict[str, Any]:
        stage = self.store.get_stage(run_id, stage_name)
        if stage.state in (StageState.SUCCEEDED, StageState.SPLIT):
            # The process may have died between storing this and sending what follows.
            self.send(run_id, self.store.queued_stages(run_id))
        return _summary(run_id, stage_name, stage.state, stage.attempt, claimed=False, rows=stage.rows_done)


def _summary(
    run_id: str, stage: str, state: StageState, attempt: int, *, claimed: bool, rows: int | None
) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "stage": stage,
        "state": str(state),
        "attempt": attempt,
        "claimed": claimed,
        "rows": rows,
    }
