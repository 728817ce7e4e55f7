"""The base class of reliable tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from celery import Task
from celery.exceptions import Reject, Retry

from techdeck_tasks.errors import (
    Classification,
    RetryExhaustedError,
    TechDeckError,
    as_techdeck_error,
    classify,
    is_control_flow,
)
from techdeck_tasks.events import ExecutionSucceeded, Outcome, RetryScheduled
from techdeck_tasks.resilience.backoff import Refusal, RetryDecision, RetryPolicy, decide
from techdeck_tasks.tasks.disclosure import disclosable
from techdeck_tasks.tasks.services import TaskServices, services_of

STARTED_HEADER = "td_started_at"
"""Message header with the moment the first attempt began, in seconds since 1970; retries carry it on."""

_RUNNING = "td_running"


class TechDeckTask(Task):  # type: ignore[misc]  # celery ships no types
    """A Celery task whose failures are classified, retried with backoff and jitter, redacted and audited.

    Declare on the task what differs from the settings::

        @app.task(base=TechDeckTask, service="lab", retry=RetryPolicy(max_retries=5, delay_s=2))
        def fetch_results(order_id): ...

    Called directly, a task is its plain function. Celery's control flow (`Retry`, `Ignore`, `Reject`) passes
    untouched, and a task may still call ``self.retry()`` itself.

    Attributes:
        service: what the task depends on, for metrics and breakers; default: the task's name.
        retry_policy: given as the option ``retry=``; default: from the settings.
    """

    abstract = True
    Request = "techdeck_tasks.tasks.request:TechDeckRequest"

    service: ClassVar[str | None] = None
    retry_policy: ClassVar[RetryPolicy | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Celery turns task options into class attributes, and `retry` is a method of Task.
        declared = cls.__dict__.get("retry")
        if isinstance(declared, RetryPolicy):
            cls.retry_policy = declared
            del cls.retry

    # -- what an application may override -----------------------------------------------------------

    def error_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002 - for overriders
        """Return facts for the audit of an error: pipeline_id, stage, user_id, subject_id, or any other."""
        return {}

    def on_retry_scheduled(
        self,
        error: TechDeckError,
        attempt: int,
        delay_s: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Take note that `attempt` (from 0) failed and another follows in `delay_s` seconds."""

    def on_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take note that the task failed for good; also called, in the worker's main process, when its child was killed."""

    # -- one attempt --------------------------------------------------------------------------------

    @property
    def services(self) -> TaskServices:
        """What the application gives its tasks."""
        return services_of(self.app)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one attempt of a task that a worker (or eager mode) traces; else just the function."""
        request = self.request
        if request.called_directly or getattr(request, _RUNNING, False):
            return super().__call__(*args, **kwargs)
        setattr(request, _RUNNING, True)
        services = self.services
        began = services.clock.monotonic()
        try:
            result = self.run(*args, **kwargs)
        except Exception as error:
            if is_control_flow(error):
                raise
            self._end_attempt(error, args, kwargs)
        services.listeners.on_event(
            ExecutionSucceeded(
                service=self.service_name,
                operation=self.name,
                duration_s=services.clock.monotonic() - began,
                attempt=request.retries,
                occurred_at=services.clock.now(),
            )
        )
        return result

    @property
    def service_name(self) -> str:
        """The service this task counts for."""
        return self.service or self.name

    @property
    def effective_policy(self) -> RetryPolicy:
        """The retry policy in force."""
        return self.retry_policy or self.services.retry_policy

    def full_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], request: Any) -> dict[str, Any]:
        """Return everything an error of this task is audited with."""
        return {
            "service": self.service_name,
            "operation": self.name,
            "task_name": self.name,
            "task_id": request.id,
            "root_id": request.root_id,
            "parent_id": request.parent_id,
            "attempt": request.retries,
            **self.error_context(args, kwargs),
        }

    def _end_attempt(self, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        services, request = self.services, self.request
        context = self.full_context(args, kwargs, request)
        classification = classify(error, context)
        now = services.clock.now()
        started = getattr(request, STARTED_HEADER, None) or now.timestamp()
        decision = decide(
            self.effective_policy,
            classification,
            attempt=request.retries,
            elapsed_s=max(0.0, now.timestamp() - started),
            now=now,
            rng=services.rng,
            error=error,
            context=context,
        )
        if decision.retry:
            services.handler.handle(error, context, outcome=Outcome.RETRY)
            self._retry_later(error, classification, decision, started, args, kwargs)
        final = self._final_error(error, context, decision)
        services.handler.handle(final, context, outcome=Outcome.FAILED)
        self.on_given_up(as_techdeck_error(final, context), args, kwargs)
        raise disclosable(final) from None

    def _retry_later(
        self,
        error: Exception,
        classification: Classification,
        decision: RetryDecision,
        started: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> NoReturn:
        services, attempt = self.services, self.request.retries
        self.on_retry_scheduled(as_techdeck_error(error), attempt, decision.delay_s, args, kwargs)
        services.listeners.on_event(
            RetryScheduled(
                service=self.service_name,
                operation=self.name,
                error_code=classification.error_code,
                attempt=attempt,
                delay_s=decision.delay_s,
                occurred_at=services.clock.now(),
            )
        )
        raise self.retry(
            exc=disclosable(error),
            countdown=decision.delay_s,
            max_retries=self.effective_policy.max_retries,
            headers={STARTED_HEADER: started},
        ) from None

    def _final_error(self, error: Exception, context: Mapping[str, Any], decision: RetryDecision) -> Exception:
        attempts = self.request.retries + 1
        if decision.reason == Refusal.NOT_RETRYABLE or attempts == 1:
            return error
        return RetryExhaustedError(
            f"{self.name} failed after {attempts} attempts ({decision.reason})",
            operation_name=self.name,
            last_error=as_techdeck_error(error, context),
            attempts=attempts,
        )

    def retry(self, *args: Any, **kwargs: Any) -> Retry:
        """Send the task again, as `celery.Task.retry`; a broker that is away then does not lose it.

        Celery rejects the message when it cannot publish its successor, which ends the task. Here it goes
        back to the queue, and the attempt is made once more when the broker is back.
        """
        try:
            retry: Retry = super().retry(*args, **kwargs)
        except Reject as reject:
            raise Reject(reject.reason, requeue=True) from None
        return retry
