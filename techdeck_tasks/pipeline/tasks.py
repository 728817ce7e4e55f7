"""The Celery tasks: ``techdeck.pipeline.execute``, and ``techdeck.stage.<kind>`` for each kind of stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol, cast

from celery import Celery
from kombu.exceptions import OperationalError

from techdeck_tasks.errors import AuthorizationError, ConnectionFailedError, TechDeckError, ValidationError
from techdeck_tasks.pipeline.definition import Priority, parse_definition
from techdeck_tasks.pipeline.registry import known_stages
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.tasks.base import TechDeckTask

logger = logging.getLogger(__name__)

EXECUTE = "techdeck.pipeline.execute"
STAGE_PREFIX = "techdeck.stage."


class _PipelineServices(Protocol):
    """What pipelines need of a runtime beyond what tasks do."""

    @property
    def pipeline(self) -> PipelineEngine:
        """Runs pipelines."""


class PipelineTask(TechDeckTask):
    """Base of the task that starts a run."""

    # A run is resumed from its state in PostgreSQL; sending one of its messages again would have no effect.
    dead_letters = False

    abstract = True

    @property
    def engine(self) -> PipelineEngine:
        """The process's engine."""
        return cast("_PipelineServices", self.services).pipeline

    def error_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - the hook's shape
        """Name the run; the definition stays out."""
        return {"pipeline_id": self.request.id, "service": "pipeline", "operation": "execute"}

    def on_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG002 - the hook's shape
        """Fail the run if it was stored and none of its stages could be sent."""
        run_id = self.request.id
        if run_id is None or isinstance(error, ValidationError | AuthorizationError):
            return  # what is refused was never stored
        try:
            self.engine.start_failed(run_id, error)
        except TechDeckError as trouble:
            logger.error("run %s could not be marked as failed: %s", run_id, trouble)  # noqa: TRY400 - its cause may quote SQL


class StageTask(PipelineTask):
    """Base of the tasks that run one stage. Arguments: run id, stage name, generation; never data."""

    abstract = True

    def error_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Name the run and the stage."""
        run_id, stage_name, _ = _arguments(args, kwargs)
        kind = str(self.name).removeprefix(STAGE_PREFIX)
        return {"pipeline_id": run_id, "stage": stage_name, "service": kind, "operation": f"stage.{kind}"}

    def on_retry_scheduled(
        self,
        error: TechDeckError,
        attempt: int,
        delay_s: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Note the coming attempt, for readers; the claim of that attempt does not depend on it."""
        run_id, stage_name, _ = _arguments(args, kwargs)
        try:
            self.engine.stage_retrying(
                run_id,
                stage_name,
                error,
                attempt=attempt,
                task_id=self.request.id,
                delay=timedelta(seconds=delay_s),
            )
        except TechDeckError as trouble:
            # The retry itself must still be published: its claim takes the stage from `running`, too.
            logger.warning("retry of stage %s of run %s not noted: %s", stage_name, run_id, trouble)

    def on_parked(self, delay_s: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Let the stage not be taken for lost while it waits."""
        run_id, stage_name, generation = _arguments(args, kwargs)
        try:
            self.engine.store.await_stage(run_id, stage_name, generation, timedelta(seconds=delay_s))
        except TechDeckError as trouble:
            # It is sent once more then, which does no harm.
            logger.warning("the wait of stage %s of run %s is not noted: %s", stage_name, run_id, trouble)

    def on_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """End the stage and what depends on it.

        Runs in the worker's main process when the child was killed: nothing here may compute with Polars,
        whose thread pool, once started, does not survive the fork of the next child.
        """
        run_id, stage_name, generation = _arguments(args, kwargs)
        try:
            self.engine.stage_failed(
                run_id, stage_name, error, task_id=self.request.id, generation=generation
            )
        except TechDeckError as trouble:
            logger.error("the end of stage %s of run %s is not stored: %s", stage_name, run_id, trouble)  # noqa: TRY400 - its cause may quote SQL


_PRIORITIES = {Priority.NORMAL: 0, Priority.LOW: 9}
"""As the transport counts: 0 is taken first, and is what messages have that say nothing. So nothing can be
put before ordinary work, only behind it."""

_HARD_LIMIT_MARGIN_S = 30


class CeleryDispatcher:
    """Sends a stage as a message of its kind's task."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, run_id: str, stage: ReadyStage) -> None:
        """Publish the stage's message.

        Raises:
            ConnectionFailedError: the broker could not be reached.
            ValidationError: this process knows no such kind of stage.
        """
        task = self._app.tasks.get(STAGE_PREFIX + stage.kind)
        if task is None:
            raise ValidationError(
                f"no task runs stages of kind {stage.kind!r}; import its module before the app is made",
                field="stage",
            )
        limits: dict[str, int] = {}
        if stage.timeout_seconds is not None:
            # The soft limit ends the attempt, and it is retried; the hard one is for code that ignores it.
            hard_s = min(stage.timeout_seconds + _HARD_LIMIT_MARGIN_S, self._app.conf.task_time_limit)
            limits = {"soft_time_limit": stage.timeout_seconds, "time_limit": hard_s}
        try:
            task.apply_async(
                (run_id, stage.name, stage.generation),
                retries=stage.attempt,
                priority=_PRIORITIES[Priority(stage.priority)],
                **limits,
            )
        except (OperationalError, OSError) as error:
            raise ConnectionFailedError(
                f"stage {stage.name!r} could not be sent: the broker is away; check TECHDECK_BROKER_URL",
                service_name="broker",
                original_error=error,
            ) from error


def register(app: Celery) -> None:
    """Give `app` the task that starts pipelines and one for each kind of stage known now."""
    # shared=False: Celery would otherwise hand the tasks to every later app of the process as well.
    app.task(_execute, name=EXECUTE, bind=True, base=PipelineTask, shared=False, service="pipeline")
    for kind in known_stages():
        app.task(
            _run_stage,
            name=STAGE_PREFIX + kind.name,
            bind=True,
            base=StageTask,
            shared=False,
            service=kind.name,
        )


def _execute(
    self: PipelineTask, definition: dict[str, Any], idempotency_key: str | None = None
) -> dict[str, Any]:
    """Start a pipeline; the run's id is the task's, unless the idempotency key has a run already."""
    return self.engine.start(self.request.id, parse_definition(definition), idempotency_key)


def _run_stage(self: StageTask, run_id: str, stage_name: str, generation: int = 0) -> dict[str, Any]:
    """Run one stage of a run."""
    return self.engine.run_stage(
        run_id, stage_name, attempt=self.request.retries, task_id=self.request.id, generation=generation
    )


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, str, int]:
    named = dict(zip(("run_id", "stage_name", "generation"), args, strict=False)) | dict(kwargs)
    return str(named.get("run_id")), str(named.get("stage_name")), int(named.get("generation", 0))
