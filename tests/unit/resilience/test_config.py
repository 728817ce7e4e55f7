"""The breaker's configuration and what follows from a reply."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from techdeck_tasks.errors import TimeoutError as OurTimeoutError
from techdeck_tasks.resilience.breaker import BreakerConfig, CircuitBreaker, RetryBudget, State
from techdeck_tasks.resilience.breaker.gate import StoreGate
from techdeck_tasks.resilience.breaker.state import Override, Reply
from techdeck_tasks.resilience.breaker.view import Step, view_of
from techdeck_tasks.settings import Settings
from techdeck_tasks.testing.breaker import InMemoryBreakerStore

Clock = Any


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_threshold": 0},
        {"success_threshold": 0},
        {"open_s": 0},
        {"open_growth": 0.9},
        {"open_s": 60, "open_cap_s": 30},
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"slow_rate": 0},
        {"slow_call_s": -1},
        {"probes": 0},
        {"lease_s": 0},
        {"lease_s": float("inf")},
        {"drain_s": -1},
        {"drain_per_s": 0},
        {"drain_per_s": 1001},
        {"window_s": 0.001},
        {"snapshot_s": -0.1},
    ],
)
def test_a_value_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="use"):
        BreakerConfig(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_settings_give_thresholds_timeout_lease_and_pacing() -> None:
    settings = Settings(circuit_breaker_failure_threshold=7, circuit_breaker_timeout_seconds=30)
    config = BreakerConfig.from_settings(settings, probes=2)
    assert (config.failure_threshold, config.open_s, config.probes) == (7, 30, 2)
    assert config.lease_s >= settings.task_time_limit_seconds
    assert config.drain_s == 5


def test_what_goes_to_redis_is_whole_numbers_of_milliseconds() -> None:
    wire = json.loads(BreakerConfig(open_s=1.5).wire)
    assert wire["open_ms"] == 1500
    assert replace(BreakerConfig(), open_s=2.0).numbers["open_ms"] == 2000


def test_a_retry_after_a_timeout_costs_more() -> None:
    budget = RetryBudget()
    assert budget.cost_of(OurTimeoutError("x")) == budget.cost_of(TimeoutError()) == 10
    assert budget.cost_of(KeyError()) == 5
    with pytest.raises(ValueError, match="capacity"):
        RetryBudget(capacity=0)


@pytest.mark.parametrize(
    ("reply", "step", "until", "then"),
    [
        (Reply(State.CLOSED, 1, 0), Step.PASS, 100.25, Step.ASK),
        (Reply(State.OPEN, 1, 0, open_left_ms=500), Step.REJECT, 100.5, Step.LEASE),
        (Reply(State.OPEN, 1, 0, open_left_ms=60_000), Step.REJECT, 101.0, Step.ASK),
        (
            Reply(State.CLOSED, 1, 0, override=Override(State.DISABLED, 100, "ann", "x")),
            Step.FREE,
            100.1,
            Step.ASK,
        ),
        (
            Reply(State.CLOSED, 1, 0, override=Override(State.FORCED_OPEN, 0, "ann", "x")),
            Step.REJECT,
            101.0,
            Step.ASK,
        ),
        (
            Reply(State.OPEN, 1, 0, open_left_ms=500, override=Override(State.SHADOW, 0, "ann", "x")),
            Step.FREE,
            100.5,
            Step.LEASE,
        ),
    ],
)
def test_a_reply_says_what_may_be_decided_alone_and_until_when(
    reply: Reply, step: Step, until: float, then: Step
) -> None:
    view = view_of(reply, InMemoryBreakerStore(), BreakerConfig(), 100.0)
    assert (view.step_at(100.0), view.step_at(view.until + 0.001)) == (step, then)
    assert view.until == pytest.approx(until)


def test_a_store_that_is_away_is_asked_again_by_one_caller_at_a_time() -> None:
    gate = StoreGate(retry_s=1)
    assert gate.admits(0)
    assert gate.failed(0)
    assert not gate.failed(0)
    assert gate.away
    assert not gate.admits(0.9)
    assert gate.admits(1.0)
    assert not gate.admits(1.0), "another is trying"
    assert gate.answered()
    assert gate.admits(1.1)


def test_a_test_decides_when_the_open_period_ends_and_when_the_store_is_away(clock: Clock) -> None:
    store = InMemoryBreakerStore(clock)
    breaker = CircuitBreaker("lab", store, BreakerConfig(open_s=60, success_threshold=1), clock=clock)
    for _ in range(5):
        breaker.acquire().failure()
    assert not breaker.can_execute()
    clock.sleep(59)
    assert not breaker.can_execute()
    store.away = True
    assert breaker.get_status()["source"] == "local"
    clock.sleep(2)
    assert breaker.can_execute(), "the local breaker knew when it would have been due"
    breaker.record_success()
    store.away = False
    clock.sleep(2)
    assert breaker.can_execute()
    breaker.record_success()
    status = breaker.get_status()
    assert (status["state"], status["source"]) == ("closed", "redis")


def test_a_listener_that_fails_harms_nobody(clock: Clock) -> None:
    class Deaf:
        def on_event(self, event: object) -> None:
            raise RuntimeError

    breaker = CircuitBreaker("lab", InMemoryBreakerStore(clock), clock=clock, listener=Deaf())
    for _ in range(5):
        breaker.acquire().failure()
    assert not breaker.can_execute()
