"""Retries of plain callables."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from techdeck_tasks.errors import (
    CircuitBreakerError,
    RateLimitError,
    RetryExhaustedError,
    ServiceUnavailableError,
    ValidationError,
)
from techdeck_tasks.events import Event, RetryScheduled
from techdeck_tasks.resilience import BreakerConfig, RetryBudget, RetryManager, RetryRegistry
from techdeck_tasks.resilience.breaker import BreakerRegistry
from techdeck_tasks.settings import Settings
from techdeck_tasks.testing.breaker import in_memory_breakers

Clock = Any


class Flaky:
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.calls = 0
        self.failures = failures
        self.error = error or ServiceUnavailableError("lab is down")

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "answer"

    async def asynchronous(self) -> str:
        await asyncio.sleep(0)
        return self()


class Heard(list[Event]):
    def on_event(self, event: Event) -> None:
        self.append(event)


@pytest.fixture
def breakers(settings: Settings, clock: Clock) -> BreakerRegistry:
    return in_memory_breakers(settings, clock=clock)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def retry(settings: Settings, breakers: BreakerRegistry, clock: Clock, heard: Heard) -> RetryManager:
    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    return RetryManager(
        settings,
        breakers,
        RetryRegistry(None, clock=clock),
        clock=clock,
        rng=random.Random(1),
        listener=heard,
        sleep=sleep,
    )


Execute = Callable[..., Any]


def both(retry: RetryManager) -> list[Execute]:
    """Run an operation as a sync and as an async caller does."""

    def run_async(operation: Flaky, *args: Any, **options: Any) -> Any:
        async def scenario() -> Any:
            answer: Awaitable[Any] = retry.execute_with_retry(operation.asynchronous, *args, **options)
            return await answer

        return asyncio.run(scenario())

    return [retry.execute_with_retry, run_async]


@pytest.fixture(params=["sync", "async"])
def execute(request: pytest.FixtureRequest, retry: RetryManager) -> Execute:
    sync, asynchronous = both(retry)
    return asynchronous if request.param == "async" else sync


def test_a_passing_trouble_is_retried_until_it_passes(execute: Execute, clock: Clock, heard: Heard) -> None:
    operation = Flaky(2)
    assert execute(operation, "lab") == "answer"
    assert operation.calls == 3
    assert [0.75, 1.5] <= clock.slept <= [1.25, 2.5]
    assert [event.attempt for event in heard if isinstance(event, RetryScheduled)] == [0, 1]


def test_no_retries_means_one_attempt(execute: Execute) -> None:
    operation = Flaky(1)
    with pytest.raises(RetryExhaustedError) as caught:
        execute(operation, "lab", max_retries=0)
    assert operation.calls == 1
    assert caught.value.details["attempts"] == 1
    assert caught.value.details["last_error_code"] == "SERVICE_UNAVAILABLE"


def test_arguments_replace_settings(execute: Execute, clock: Clock) -> None:
    with pytest.raises(RetryExhaustedError):
        execute(Flaky(9), "lab", max_retries=2, retry_delay=10, exponential_base=1)
    assert len(clock.slept) == 2
    assert all(7.5 <= delay <= 12.5 for delay in clock.slept)


def test_what_cannot_pass_is_raised_unchanged_and_is_no_failure_of_the_service(
    execute: Execute, breakers: BreakerRegistry
) -> None:
    error = ValidationError("age is no number")
    operation = Flaky(9, error)
    with pytest.raises(ValidationError) as caught:
        execute(operation, "lab")
    assert caught.value is error
    assert operation.calls == 1
    assert breakers.get_failure_count("lab") == 0


def test_the_breaker_is_asked_before_every_attempt(execute: Execute, breakers: BreakerRegistry) -> None:
    breakers.configure("lab", BreakerConfig(failure_threshold=2, open_s=600))
    operation = Flaky(9)
    with pytest.raises(CircuitBreakerError):
        execute(operation, "lab", max_retries=5)
    assert operation.calls == 2
    with pytest.raises(CircuitBreakerError):
        execute(operation, "lab")
    assert operation.calls == 2, "open: not even one attempt"


def test_the_moment_the_other_side_names_is_waited_for(execute: Execute, clock: Clock) -> None:
    error = RateLimitError("slow down", reset_time=clock.now() + timedelta(seconds=30))
    assert execute(Flaky(1, error), "lab") == "answer"
    assert 30 <= clock.slept[0] <= 33.1


def test_the_time_budget_ends_it(execute: Execute, clock: Clock) -> None:
    with pytest.raises(RetryExhaustedError, match="time budget"):
        execute(Flaky(99), "lab", max_retries=99)
    assert clock.elapsed <= 3600


def test_the_shared_retry_budget_stops_a_storm(execute: Execute, breakers: BreakerRegistry) -> None:
    budget = RetryBudget(capacity=10, retry_cost=5, refill_per_s=0)
    breakers.configure("lab", BreakerConfig(failure_threshold=999, budget=budget))
    operation = Flaky(99)
    with pytest.raises(RetryExhaustedError, match="retry budget"):
        execute(operation, "lab", max_retries=50)
    assert operation.calls == 3


def test_a_lambda_around_a_coroutine_function_is_awaited(retry: RetryManager) -> None:
    operation = Flaky(1)

    async def scenario() -> Any:
        answer: Any = retry.execute_with_retry(lambda: operation.asynchronous(), "lab")  # noqa: PLW0108 - the point
        return await answer

    assert asyncio.run(scenario()) == "answer"
    assert operation.calls == 2


def test_a_cancelled_operation_is_not_retried(retry: RetryManager) -> None:
    async def scenario() -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        task = asyncio.ensure_future(retry.execute_with_retry(hang, "lab"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_keyboard_interrupt_passes_at_once(retry: RetryManager) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retry.execute_with_retry(interrupted, "lab")


def test_a_condition_decides_what_is_retried(retry: RetryManager) -> None:
    seen = []

    def condition(error: BaseException, attempt: int, context: Mapping[str, Any]) -> bool:
        seen.append((attempt, context["who"]))
        return isinstance(error, KeyError)

    operation = Flaky(2, KeyError("x"))
    assert (
        retry.execute_with_conditional_retry(operation, condition, "lab", context={"who": "me"}) == "answer"
    )
    assert seen == [(0, "me"), (1, "me")]
    with pytest.raises(ServiceUnavailableError):
        retry.execute_with_conditional_retry(Flaky(1), condition, "lab", context={"who": "me"})
    with pytest.raises(RetryExhaustedError):
        retry.execute_with_conditional_retry(
            Flaky(9, KeyError("x")), condition, "lab", max_retries=0, context={"who": "me"}
        )


def test_statistics_have_the_specifications_keys_and_a_distribution(retry: RetryManager) -> None:
    retry.execute_with_retry(Flaky(0), "lab")
    retry.execute_with_retry(Flaky(2), "lab")
    with pytest.raises(RetryExhaustedError):
        retry.execute_with_retry(Flaky(9), "store", max_retries=1)
    one = retry.get_retry_statistics("lab")
    assert one["total_operations"] == 2
    assert one["successful_operations"] == 2
    assert one["failed_operations"] == 0
    assert one["total_retries"] == 2
    assert one["average_retries_per_operation"] == 1.0
    assert one["retry_distribution"] == {"2": 1}
    assert one["circuit_breaker_status"]["state"] == "closed"
    assert one["timestamp"].startswith("2026-01-01T00:00")
    every = retry.get_retry_statistics()
    assert (every["total_operations"], every["failed_operations"], every["total_retries"]) == (3, 1, 3)
    assert set(every["operations"]) == {"lab", "store"}
    assert set(every["circuit_breaker_status"]) == {"lab", "store"}


def test_no_message_of_an_error_reaches_the_exhausted_one_unredacted(retry: RetryManager) -> None:
    with pytest.raises(RetryExhaustedError) as caught:
        retry.execute_with_retry(Flaky(9, ConnectionError("connection with password=hunter2")), "lab", 0)
    assert "hunter2" not in str(caught.value.to_dict())
