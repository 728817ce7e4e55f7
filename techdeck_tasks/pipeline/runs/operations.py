"""What operators and beat do with runs: cancel, resume, reconcile, collect. Each action is on record."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import (
    PipelineExecutionError,
    Severity,
    TechDeckError,
    WorkerLostError,
)
from techdeck_tasks.events import Outcome
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.data.workspace import remove_abandoned
from techdeck_tasks.pipeline.registry import find_stage
from techdeck_tasks.pipeline.runs.control import OverdueStage, RunControl
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.state import RunState, StageState

logger = logging.getLogger(__name__)

STAGE_TASK_PREFIX = "techdeck.stage."


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconciliation found and mended.

    Attributes:
        resent: stages whose message was lost and was sent again.
        lost: attempts whose worker died, and which another attempt follows.
        failed: stages that failed because their last attempt was lost.
    """

    resent: int = 0
    lost: int = 0
    failed: int = 0


class RunOperations:
    """Cancels, resumes and looks after runs.

    Args:
        engine: runs pipelines.
        control: changes their state.
        artifacts: their data.
        handler: takes the error of a lost attempt.
        trail: where operators' actions are recorded before they are done.
        clock: the time.
        max_retries: how many attempts may follow the first one of a stage.
        artifact_retention: so long after a run's end its artifacts are kept.
        audit_retention_days: so long an action must be kept on record.
    """

    def __init__(
        self,
        *,
        engine: PipelineEngine,
        control: RunControl,
        artifacts: ArtifactStore,
        handler: ErrorHandler,
        trail: AuditTrail,
        clock: Clock,
        max_retries: int,
        artifact_retention: timedelta,
        audit_retention_days: int,
    ) -> None:
        self._engine = engine
        self._control = control
        self._artifacts = artifacts
        self._handler = handler
        self._trail = trail
        self._clock = clock
        self._max_retries = max_retries
        self._artifact_retention = artifact_retention
        self._audit_retention_days = audit_retention_days

    def cancel(self, run_id: str, *, owner: str, reason: str) -> RunState:
        """Call a run off and return its state: `cancelled`, or `cancelling` while a stage still runs.

        What waits is cancelled at once; what runs stops at its next look at `context.check_cancelled()`, and
        what it delivers is refused.

        Raises:
            PipelineExecutionError: there is no such run, or it has ended.
            AuditUnavailableError: the action cannot be recorded; it is not done.
        """
        self._engine.store.get_run(run_id)
        self._record("run.cancel", run_id, owner, reason)
        return self._control.cancel_run(run_id)

    def resume(self, run_id: str, *, owner: str, reason: str) -> list[str]:
        """Make a failed or cancelled run go on from where it ended; return the stages that were sent.

        Raises:
            PipelineExecutionError: there is no such run, it did not fail, or artifacts are gone.
            EncryptionError: its definition cannot be opened with this process's keys.
            ValidationError: it has a kind of stage that this process does not know.
            AuditUnavailableError: the action cannot be recorded; it is not done.
        """
        run = self._engine.store.get_run(run_id)
        for spec in self._engine.store.get_definition(run_id).stages:
            find_stage(spec.kind)
        for stage in run.stages:
            kept = stage.state is StageState.SUCCEEDED and stage.output is not None
            if kept and not self._artifacts.exists(ArtifactRef.from_dict(stage.output or {})):
                raise PipelineExecutionError(
                    f"the artifact of stage {stage.name!r} of run {run_id} is gone; run the pipeline again",
                    pipeline_id=run_id,
                    stage=stage.name,
                )
        self._record("run.resume", run_id, owner, reason)
        ready = self._control.resume_run(run_id)
        self._engine.send(run_id, ready)
        return [stage.name for stage in ready]

    def reconcile(self) -> Reconciled:
        """Send again what a lost message or a dead worker left behind.

        May run as often, and as often at once, as one likes: of several that find the same stage one changes
        it. What cannot be done now, because a server is away, is found again by the next call.
        """
        resent = lost = failed = 0
        for overdue in self._control.overdue_stages():
            try:
                if overdue.state is StageState.RUNNING:
                    followed = self._lose(overdue)
                    lost += followed is True
                    failed += followed is False
                else:
                    ready = self._control.resend_stage(overdue)
                    self._engine.send(overdue.run_id, ready)
                    resent += len(ready)
            except TechDeckError as trouble:
                # One stage that cannot be mended now must not keep the others waiting.
                logger.warning(
                    "stage %s of run %s is not reconciled yet: %s", overdue.name, overdue.run_id, trouble
                )
        return Reconciled(resent, lost, failed)

    def collect(self) -> int:
        """Remove the artifacts of runs that ended too long ago, and what killed processes left in workspaces.

        Returns how many runs' artifacts were removed. A run that may still be resumed keeps its artifacts.
        """
        remove_abandoned()
        run_ids = self._control.give_up_artifacts(self._clock.now() - self._artifact_retention)
        removed = 0
        for run_id in run_ids:
            try:
                self._artifacts.remove_run(run_id)
            except TechDeckError as trouble:
                logger.warning("the artifacts of run %s are not removed yet: %s", run_id, trouble)
                self._control.keep_artifacts([run_id])
            else:
                removed += 1
        return removed

    def _lose(self, overdue: OverdueStage) -> bool | None:
        """Take the stage from its attempt; return whether another follows, None where it was alive."""
        following = overdue.attempt + 1 if overdue.attempt < self._max_retries else None
        error = WorkerLostError(
            f"the worker that ran attempt {overdue.attempt + 1} of stage {overdue.name!r} is gone",
            operation=STAGE_TASK_PREFIX + overdue.kind,
        )

        def record() -> object:
            return self._handler.handle(
                error,
                {
                    "service": overdue.kind,
                    "operation": f"stage.{overdue.kind}",
                    "task_name": STAGE_TASK_PREFIX + overdue.kind,
                    "task_id": overdue.task_id,
                    "attempt": overdue.attempt,
                    "pipeline_id": overdue.run_id,
                    "stage": overdue.name,
                },
                outcome=Outcome.FAILED if following is None else Outcome.RETRY,
                event_id=overdue.event_id,
            )

        settled = self._control.lose_attempt(overdue, error, next_attempt=following, record=record)
        if not settled.accepted:
            return None
        self._engine.send(overdue.run_id, settled.ready)
        return following is not None

    def _record(self, operation: str, run_id: str, owner: str, reason: str, **facts: Any) -> None:
        self._trail.record(
            operator_action(
                "pipeline",
                operation,
                owner,
                {
                    "message": f"{owner}: {operation}: {reason}",
                    "owner": owner,
                    "reason": reason,
                    **facts,
                },
                severity=Severity.MEDIUM,
                retention_days=self._audit_retention_days,
                pipeline_id=run_id,
            )
        )
