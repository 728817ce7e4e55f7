"""One attempt of a task, from the breaker's permit to whatever it comes to.

`run` returns the body's result. Otherwise the attempt comes to one of these, each audited before it happens:

- `_shut`, where the breaker is open: it parks, or ends;
- `_failed`: the error is classified, the breaker told, a retry decided: it is sent again, or ends;
- `_end`: a fallback stands in, a person is waited for, or it has failed for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from billiard.process import current_process
from celery.exceptions import Ignore, Reject, Retry

from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.errors import (
    CircuitBreakerError,
    Classification,
    FallbackFailedError,
    PipelineExecutionError,
    RetryExhaustedError,
    TechDeckError,
    WorkerLostError,
    approachable,
    as_techdeck_error,
    classify,
    is_control_flow,
)
from techdeck_tasks.errors.anatomy import forget_preceding, is_open
from techdeck_tasks.events import ExecutionSucceeded, Outcome, RetryScheduled
from techdeck_tasks.redaction.foreign import is_of_green_threads, short_name
from techdeck_tasks.resilience.backoff import Refusal, RetryDecision
from techdeck_tasks.resilience.fallback import mark_fallback, may_stand_in
from techdeck_tasks.tasks.broker import OUTAGE
from techdeck_tasks.tasks.disclosure import disclosable
from techdeck_tasks.tasks.expiry import expires_within
from techdeck_tasks.tasks.guard import Shut, breaker_of, report_failure
from techdeck_tasks.tasks.headers import header_of
from techdeck_tasks.tasks.letters import LetterKind
from techdeck_tasks.tasks.standin import primary_error, replace_with
from techdeck_tasks.tasks.visibility import longest_wait_s

if TYPE_CHECKING:
    from types import TracebackType

    from celery.canvas import Signature

    from techdeck_tasks.resilience.breaker import Permit
    from techdeck_tasks.tasks.base import TechDeckTask

PARKED_HEADER: Final = "td_parked"
"""Message header that counts how often this attempt met an open breaker."""

TOLD: Final = "td_told"
"""Set on a request whose end was audited here."""

REPLACED: Final = "td_replaced"
"""Set on a request whose task let another one take its place."""

MAIN_PROCESS: Final = "MainProcess"
"""Billiard's name of a process that is no child of a pool."""

ASK_A_PERSON: Final = "request_user_intervention"

_NOT_SENT = "the broker was away"
_SHORTEST_PARKING_S = 0.1
_PARKING_SPREAD = 0.25


class Attempt:
    """One attempt of `task`, inside a worker or eager.

    Args:
        task: the running task; its request says which attempt it is.
        args: its arguments.
        kwargs: its keyword arguments.
    """

    def __init__(self, task: TechDeckTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task = task
        self._args = args
        self._kwargs = kwargs
        self._request = task.request
        self._services = task.services
        self._breaker = breaker_of(self._services.breakers, task.breaker, task.service_name)
        self._permit: Permit | None = None

    def run(self) -> Any:
        """Return the body's result, or that of a fallback; raise what the attempt came to."""
        clock = self._services.clock
        try:
            if self._breaker is not None:
                self._permit = self._breaker.acquire(f"{self._request.id}:{self._request.retries}")
            began = clock.monotonic()
            result = self._task.run(*self._args, **self._kwargs)
        except Exception as error:
            found = self._failure_of(error)
            if found is None:
                self._release()
                # Celery logs and stores what it was raised from, or while handling, which may hold data.
                forget_preceding(error)
                raise
            failure = found
        except BaseException as error:
            if not self._would_end_worker(error):
                self._release()
                raise
            failure = WorkerLostError(
                f"the body of {self._task.name} raised {short_name(type(error))}",
                operation=self._task.name,
                original_error=error,
            )
        else:
            duration_s = clock.monotonic() - began
            if self._permit is not None:
                self._permit.success(duration_s)
            return self._succeeded(result, duration_s)
        # Outside of the handler: what is raised inside it would carry the original as its context.
        try:
            if (
                self._breaker is not None
                and self._permit is None
                and isinstance(failure, CircuitBreakerError)
            ):
                return self._shut(failure)
            return self._failed(failure)
        finally:
            del failure

    def _succeeded(self, result: Any, duration_s: float) -> Any:
        primary = primary_error(self._request, self._services)
        self._services.listeners.on_event(
            ExecutionSucceeded(
                service=self._task.service_name,
                operation=self._task.name,
                duration_s=duration_s,
                attempt=self._request.retries,
                occurred_at=self._services.clock.now(),
                fallback=primary is not None,
            )
        )
        return result if primary is None else mark_fallback(result, primary)

    def _failure_of(self, error: Exception) -> Exception | None:
        """Return what failed, as far as it can be asked; None where `error` steers and is to pass."""
        kind = type(error)
        if issubclass(kind, Ignore) and self._is_awaited_by_chord():
            return PipelineExecutionError(
                f"{self._task.name} raised Ignore inside a chord, whose body would never run; "
                "return a value instead"
            )
        if not is_control_flow(error):
            return cast("Exception", approachable(error))
        if issubclass(kind, Retry) and is_open(kind):
            return self._error_of_another(cast("Retry", error))
        return None

    def _error_of_another(self, again: Retry) -> Exception | None:
        """Return what failed in another task that the body ran in place; None of the body's own retry.

        `apply(throw=True)` raises that task's `Retry` here, where it would end this one: nobody would try
        either again.
        """
        if again.sig is None or again.sig.options.get("task_id") in (None, self._request.id):
            return None
        if issubclass(type(again.exc), Exception):
            return cast("Exception", approachable(again.exc))
        return PipelineExecutionError(f"{again.sig.task}, run in place, asks {self._task.name} to wait")

    def _is_awaited_by_chord(self) -> bool:
        """Whether a chord counts on this task or on what follows it, and no replacement answers for it."""
        request = self._request
        if request.get(REPLACED):
            return False
        followers = (step.get("options", {}) for step in request.chain or ())
        return bool(request.chord) or any(options.get("chord") for options in followers)

    def _would_end_worker(self, error: BaseException) -> bool:
        """Whether `error` would end or wedge a pool of no processes: whatever is no Exception and no order.

        Ctrl-C and Celery's orders to stop, which are subclasses of SystemExit, pass, and so does what green
        threads are killed and timed out with. In a process of a pool, the main one answers.
        """
        if self._request.is_eager or current_process().name != MAIN_PROCESS:
            return False
        kind = type(error)
        if issubclass(kind, KeyboardInterrupt) or is_of_green_threads(kind):
            return False
        return not issubclass(kind, SystemExit) or kind is SystemExit

    def _release(self) -> None:
        if self._permit is not None:
            self._permit.release()

    # -- an open breaker ----------------------------------------------------------------------------

    def _shut(self, error: CircuitBreakerError) -> Any:
        context = self._context()
        if self._task.when_open == Shut.PARK and not self._request.is_eager:
            self._park(error, context)
        return self._end(error, context)

    def _park(self, error: CircuitBreakerError, context: Mapping[str, Any]) -> None:
        """Send the attempt again for when the breaker may let one through, and raise; return if too late.

        No attempt is spent; the policy's time budget and the message's expiry go on.
        """
        services, task, request = self._services, self._task, self._request
        now = services.clock.now()
        policy = task.effective_policy
        wait_s = max((error.retry_at - now).total_seconds() if error.retry_at else 0.0, _SHORTEST_PARKING_S)
        # Spread, and only towards later: those who parked together must not come back together.
        wait_s *= 1 + services.rng.uniform(0.0, _PARKING_SPREAD)
        wait_s = min(wait_s, policy.retry_after_cap_s, longest_wait_s(task.app))
        if policy.budget_s is not None and task.elapsed_s(request) + wait_s > policy.budget_s:
            return
        if expires_within(request, wait_s, now, task.app.timezone):
            return
        parked = int(header_of(request, PARKED_HEADER) or 0)
        if parked == 0:
            # Once an attempt: a long outage must not fill the log with one row for each look at the breaker.
            self._record(error, context, Outcome.PARKED)
        task.tell_parked(wait_s, self._args, self._kwargs)
        waiting = task.successor(
            request, wait_s, retries=request.retries, headers={PARKED_HEADER: parked + 1}
        )
        if self._send(waiting):
            raise self._again(waiting, error, wait_s)

    # -- a failure ----------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> Any:
        context = self._context()
        found = classify(error, context)
        decision = self._decide(error, found, context)
        if decision.retry:
            self._record(error, context, Outcome.RETRY)
            self._retry(error, found, decision.delay_s)
            decision = replace(decision, retry=False, reason=_NOT_SENT)
        return self._end(self._final(error, context, decision), context)

    def _decide(self, error: Exception, found: Classification, context: Mapping[str, Any]) -> RetryDecision:
        decision = self._task.decide(error, found, context, self._request)
        if self._breaker is None or self._permit is None:
            return decision
        paid = report_failure(self._breaker, self._permit, error, found, wants_retry=decision.retry)
        if found.retry_at is not None and self._task.breaker is not True:
            # Asked of this task, and meant for all that use the breaker it was given by name.
            self._breaker.open_for(found.retry_at - self._services.clock.now())
        if decision.retry and not paid:
            return RetryDecision(retry=False, delay_s=0.0, reason=Refusal.RETRY_BUDGET_EMPTY.value)
        return decision

    def _retry(self, error: Exception, found: Classification, delay_s: float) -> None:
        """Send the next attempt, and raise; return where it can neither be sent nor given back."""
        task, request, services = self._task, self._request, self._services
        task.tell_retry_scheduled(
            as_techdeck_error(error), request.retries, delay_s, self._args, self._kwargs
        )
        successor = task.successor(request, delay_s)
        if not self._send(successor):
            return
        services.listeners.on_event(
            RetryScheduled(
                service=task.service_name,
                operation=task.name,
                error_code=found.error_code,
                attempt=request.retries,
                delay_s=delay_s,
                occurred_at=services.clock.now(),
            )
        )
        raise self._again(successor, error, delay_s)

    def _send(self, successor: Signature) -> bool:
        """Publish `successor`; False where the broker is away and the message cannot be given back.

        Raises:
            Reject: the broker is away; back in the queue, the attempt is made once more when it is back.
        """
        if self._request.is_eager:
            return True
        try:
            successor.apply_async()
        except OUTAGE as outage:
            away = type(outage).__name__
        else:
            return True
        if not self._task.acks_late:
            return False
        raise Reject(away, requeue=True)

    def _again(self, successor: Signature, error: Exception, delay_s: float) -> Retry:
        """Return what tells Celery that the task goes on elsewhere."""
        return Retry(exc=disclosable(error), when=delay_s, is_eager=self._request.is_eager, sig=successor)

    def _final(self, error: Exception, context: Mapping[str, Any], decision: RetryDecision) -> Exception:
        attempts = self._request.retries + 1
        if decision.reason == Refusal.NOT_RETRYABLE or attempts == 1:
            return error
        return RetryExhaustedError(
            f"{self._task.name} failed after {attempts} attempts ({decision.reason})",
            operation_name=self._task.name,
            last_error=as_techdeck_error(error, context),
            attempts=attempts,
        )

    # -- the end ------------------------------------------------------------------------------------

    def _end(self, error: Exception, context: Mapping[str, Any]) -> Any:
        task = self._task
        primary = primary_error(self._request, self._services)
        if primary is not None:
            error = FallbackFailedError(
                f"{task.name} failed, and so did what it stood in for",
                primary_error=primary,
                fallback_error=as_techdeck_error(error, context),
            )
        elif task.fallback is not None and may_stand_in(error):
            self._record(error, context, Outcome.FALLBACK)
            return self._stand_in(error, context)
        if self._asks_a_person(error):
            self._record(error, context, Outcome.PARKED)
            self._wait_for_a_person(as_techdeck_error(error, context))
        return self._fail(error, context)

    def _stand_in(self, error: Exception, context: Mapping[str, Any]) -> Any:
        task, services = self._task, self._services
        fallback = task.fallback_task
        if fallback is None:
            try:
                return services.fallbacks.run_fallback(str(task.fallback), error, context)
            except FallbackFailedError as both:
                failed = both
            self._fail(failed, context)
        shown = as_techdeck_error(error, context)
        return replace_with(task, fallback, shown, services.cipher)

    def _asks_a_person(self, error: Exception) -> bool:
        wanted = self._task.recovery == ASK_A_PERSON and self._task.leaves_letters
        return wanted and classify(error).recoverable

    def _wait_for_a_person(self, error: TechDeckError) -> NoReturn:
        self._task.keep_letter(LetterKind.INTERVENTION, error, self._request)
        raise Retry(exc=error, when=None)

    def _fail(self, error: Exception, context: Mapping[str, Any]) -> NoReturn:
        self._record(error, context, Outcome.FAILED)
        self._give_up(error, context)

    def _give_up(self, error: Exception, context: Mapping[str, Any]) -> NoReturn:
        setattr(self._request, TOLD, True)
        shown = as_techdeck_error(error, context)
        self._task.tell_given_up(shown, self._args, self._kwargs)
        raise disclosable(error)

    # -- in common ----------------------------------------------------------------------------------

    def _context(self) -> dict[str, Any]:
        return self._task.full_context(self._args, self._kwargs, self._request)

    def _record(self, error: Exception, context: Mapping[str, Any], outcome: Outcome) -> None:
        """Have `error` handled; where the audit cannot record it, the attempt ends with that instead."""
        try:
            self._services.handler.handle(error, context, outcome=outcome)
        except AuditUnavailableError as failure:
            unaudited = failure
        else:
            return
        # What cannot be recorded must neither go on nor end as if it were.
        self._give_up(unaudited, {})


def below_attempt(traceback: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that the body has, below the frames of this module."""
    below, step = None, traceback
    while step is not None:
        if step.tb_frame.f_globals.get("__name__") == __name__:
            below = step.tb_next
        step = step.tb_next
    return below
