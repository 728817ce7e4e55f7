"""Retries of plain callables, sync and async: for code outside Celery.

A task retries by `TechDeckTask`, which sends itself back to the broker; here the caller waits.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.errors import (
    CircuitBreakerError,
    RetryExhaustedError,
    approachable,
    classify,
    describe_error,
    is_control_flow,
)
from techdeck_tasks.events import Listener, RetryScheduled
from techdeck_tasks.resilience.backoff import Refusal, RetryDecision, RetryPolicy, decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from techdeck_tasks.resilience.backoff import RetryCondition
    from techdeck_tasks.resilience.breaker.circuit import CircuitBreaker
    from techdeck_tasks.resilience.breaker.permit import Permit
    from techdeck_tasks.resilience.breaker.registry import BreakerRegistry
    from techdeck_tasks.resilience.statistics import RetryRegistry
    from techdeck_tasks.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RetryManager:
    """Calls an operation until it succeeds, may not be retried, or its policy ends.

    Every attempt asks the breaker of the operation's name; every retry is paid for from the retry budget that
    all processes share. While Redis is away the breaker's local policy decides and nothing else changes.

    Args:
        settings: give the policy that a call's own arguments replace.
        breakers: one for each operation name.
        statistics: where finished operations are counted.
        clock: the time, and how a sync caller waits.
        rng: where jitter comes from.
        listener: hears of each scheduled retry.
        sleep: how an async caller waits, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        breakers: BreakerRegistry,
        statistics: RetryRegistry,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        listener: Listener | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._breakers = breakers
        self._statistics = statistics
        self._clock = clock or SystemClock()
        self._rng = rng or random.SystemRandom()
        self._listener = listener
        self._sleep = sleep

    @overload
    def execute_with_retry(
        self,
        operation: Callable[[], Awaitable[T]],
        operation_name: str,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        exponential_base: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Awaitable[T]: ...

    @overload
    def execute_with_retry(
        self,
        operation: Callable[[], T],
        operation_name: str,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        exponential_base: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> T: ...

    def execute_with_retry(  # noqa: PLR0917 - the specification's order
        self,
        operation: Callable[[], Any],
        operation_name: str,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        exponential_base: float | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `operation`, again and again where its errors may pass.

        Args:
            operation: takes nothing. What returns an awaitable is awaited: then so must this call be.
            operation_name: of the breaker, the retry budget and the statistics.
            max_retries: further attempts after the first; 0 is none, None the setting.
            retry_delay: the first delay in seconds; None: the setting.
            exponential_base: the factor between delays; None: the setting.
            context: handed to the classification.

        Returns:
            What `operation` returned, or an awaitable of it.

        Raises:
            CircuitBreakerError: the breaker is open; an attempt was not made.
            RetryExhaustedError: every attempt, the time budget or the shared retry budget is spent.
            Exception: the operation's own, unchanged, where it may not be retried.
        """
        policy = RetryPolicy.from_settings(
            self._settings, max_retries=max_retries, delay_s=retry_delay, base=exponential_base
        )
        return self._execute(operation, operation_name, policy, context)

    @overload
    def execute_with_conditional_retry(
        self,
        operation: Callable[[], Awaitable[T]],
        should_retry: RetryCondition,
        operation_name: str,
        max_retries: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Awaitable[T]: ...

    @overload
    def execute_with_conditional_retry(
        self,
        operation: Callable[[], T],
        should_retry: RetryCondition,
        operation_name: str,
        max_retries: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> T: ...

    def execute_with_conditional_retry(
        self,
        operation: Callable[[], Any],
        should_retry: RetryCondition,
        operation_name: str,
        max_retries: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """As `execute_with_retry`; ``should_retry(error, attempt, context)`` says which errors may pass."""
        policy = RetryPolicy.from_settings(self._settings, max_retries=max_retries, should_retry=should_retry)
        return self._execute(operation, operation_name, policy, context)

    def execute(
        self,
        operation: Callable[[], Any],
        operation_name: str,
        policy: RetryPolicy,
        context: Mapping[str, Any] | None = None,
    ) -> Any:
        """As `execute_with_retry`, by a policy of the caller's own."""
        return self._execute(operation, operation_name, policy, context)

    def get_retry_statistics(self, operation_name: str | None = None) -> dict[str, Any]:
        """Return the specification's statistics of one operation, or of all, JSON-safe.

        Besides its keys: ``retry_distribution``, and for all operations each one's own under ``operations``.
        While Redis is away: what this process has counted and not told.
        """
        statistics = self._statistics.get_statistics(operation_name)
        statistics["average_retries_per_operation"] = statistics.pop("average_retries")
        return statistics | {
            "circuit_breaker_status": self._breakers.get_status(operation_name),
            "timestamp": self._clock.now().isoformat(),
        }

    # -- one execution ---------------------------------------------------------------------------------

    def _execute(
        self,
        operation: Callable[[], Any],
        operation_name: str,
        policy: RetryPolicy,
        context: Mapping[str, Any] | None,
    ) -> Any:
        run = _Run(self._breakers.get(operation_name), policy, context or {}, self._clock.monotonic())
        if inspect.iscoroutinefunction(operation):
            return self._drive_async(run, operation)
        while True:
            permit = self._admit(run)
            try:
                result = operation()
            except Exception as error:  # noqa: BLE001 - sorted out in _failed
                delay_s = self._failed(run, permit, error)
            except BaseException:
                permit.release()
                raise
            else:
                if inspect.isawaitable(result):
                    # A lambda around a coroutine function: go on as it asks.
                    return self._drive_async(run, operation, _Started(permit, result))
                permit.success()
                self._finished(run, success=True)
                return result
            self._clock.sleep(delay_s)

    async def _drive_async(
        self, run: _Run, operation: Callable[[], Any], started: _Started | None = None
    ) -> Any:
        while True:
            try:
                permit = await run.breaker.acquire_async() if started is None else started.permit
            except CircuitBreakerError:
                await asyncio.to_thread(self._cut_short, run)
                raise
            try:
                result = await (operation() if started is None else started.result)
            except Exception as error:  # noqa: BLE001 - sorted out in _failed
                delay_s = await asyncio.to_thread(self._failed, run, permit, error)
            except BaseException:
                await permit.release_async()
                raise
            else:
                await permit.success_async()
                if self._count(run, success=True):
                    await asyncio.to_thread(self._statistics.flush)
                return result
            started = None
            await self._sleep(delay_s)

    def _admit(self, run: _Run) -> Permit:
        try:
            return run.breaker.acquire()
        except CircuitBreakerError:
            self._cut_short(run)
            raise

    def _cut_short(self, run: _Run) -> None:
        # An operation that never started is no failed operation.
        if run.attempt:
            self._finished(run, success=False)

    def _failed(self, run: _Run, permit: Permit, error: Exception) -> float:
        """Settle a failed attempt; the seconds until the next one, or the error that ends it all."""
        if is_control_flow(error):
            permit.release()
            raise error
        if run.breaker.is_ignored(error):
            permit.release()
        now = self._clock.now()
        found = classify(error, {"operation": run.breaker.name, **run.context})
        decision = decide(
            run.policy,
            found,
            attempt=run.attempt,
            elapsed_s=self._clock.monotonic() - run.began,
            now=now,
            rng=self._rng,
            error=error,
            context=run.context,
        )
        if decision.reason == Refusal.NOT_RETRYABLE:
            # By specification no failure of the other side: it says nothing about its health.
            permit.release()
        else:
            cost = run.breaker.config.budget.cost_of(error) if decision.retry else 0
            if not permit.failure(cost=cost):
                decision = replace(decision, retry=False, reason=Refusal.RETRY_BUDGET_EMPTY.value)
        if not decision.retry:
            self._give_up(run, decision, error)
        self._announce(run, found.error_code, found.service, decision, error)
        run.attempt += 1
        return decision.delay_s

    def _give_up(self, run: _Run, decision: RetryDecision, error: Exception) -> NoReturn:
        self._finished(run, success=False)
        logger.warning(
            "%s failed after %d attempts (%s): %s",
            run.breaker.name,
            run.attempt + 1,
            decision.reason,
            describe_error(error),
        )
        if decision.reason == Refusal.NOT_RETRYABLE:
            raise error
        raise RetryExhaustedError(
            f"{run.breaker.name} failed after {run.attempt} of {run.policy.max_retries} retries "
            f"({decision.reason})",
            operation_name=run.breaker.name,
            last_error=approachable(error),
            attempts=run.attempt + 1,
        ) from None

    def _announce(
        self, run: _Run, error_code: str, service: str, decision: RetryDecision, error: Exception
    ) -> None:
        logger.warning(
            "%s failed (attempt %d of %d), next in %.2f s: %s",
            run.breaker.name,
            run.attempt + 1,
            run.policy.max_retries + 1,
            decision.delay_s,
            describe_error(error),
        )
        if self._listener is None:
            return
        self._listener.on_event(
            RetryScheduled(
                service=service,
                operation=run.breaker.name,
                error_code=error_code,
                attempt=run.attempt,
                delay_s=decision.delay_s,
                occurred_at=self._clock.now(),
            )
        )

    def _finished(self, run: _Run, *, success: bool) -> None:
        if self._count(run, success=success):
            self._statistics.flush()

    def _count(self, run: _Run, *, success: bool) -> bool:
        return self._statistics.record(run.breaker.name, run.attempt, success=success)


@dataclass(slots=True)
class _Run:
    """One execution: `attempt` is the present one, from 0; `began` is on the monotonic clock."""

    breaker: CircuitBreaker
    policy: RetryPolicy
    context: Mapping[str, Any]
    began: float
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class _Started:
    """A first attempt that turned out to be async when it had been called."""

    permit: Permit
    result: Any
