"""Counting by rate, overrides, pacing, holding, the retry budget and the record of transitions."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from techdeck_tasks.errors import CircuitBreakerError
from techdeck_tasks.resilience.breaker import (
    BreakerConfig,
    BreakerRegistry,
    BreakerStore,
    CircuitBreaker,
    Counting,
    RetryBudget,
    State,
)
from techdeck_tasks.resilience.breaker.permit import Kind
from techdeck_tasks.resilience.breaker.state import NOTHING, Batch, ProbeOutcome
from techdeck_tasks.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

Make = Callable[..., CircuitBreaker]
Until = Callable[..., None]

RATED = BreakerConfig(counting=Counting.RATE, minimum_calls=10, failure_rate=0.5, open_s=600)


def open_it(breaker: CircuitBreaker) -> None:
    for _ in range(breaker.config.failure_threshold):
        breaker.acquire().failure()
    assert breaker.get_status()["state"] == "open"


def half_open(breaker: CircuitBreaker, until: Until) -> None:
    open_it(breaker)
    until(lambda: breaker.flush() is not None and breaker.flush().open_left_ms == 0)  # type: ignore[union-attr]  # checked before


def close_it(breaker: CircuitBreaker, until: Until) -> None:
    half_open(breaker, until)
    for _ in range(breaker.config.success_threshold):
        breaker.acquire().success()
    assert breaker.get_status()["state"] == "closed"


# -- rates ---------------------------------------------------------------------------------------------


def test_half_of_the_calls_failing_trips_it_once_there_are_enough(make: Make) -> None:
    breaker = make(RATED)
    for _ in range(4):
        breaker.acquire().success()
        breaker.acquire().failure()
    assert breaker.get_status()["state"] == "closed", "8 calls say nothing yet"
    breaker.acquire().success()
    breaker.acquire().failure()
    assert breaker.get_status()["state"] == "open"


def test_successes_between_do_not_hide_a_high_rate_of_failures(make: Make) -> None:
    breaker = make(RATED)
    calls = 0
    while breaker.can_execute():
        breaker.record_success() if calls % 5 == 4 else breaker.record_failure()
        calls += 1
    assert calls <= 11, "the success that made it ten calls may be told with the next"


def test_failures_of_many_processes_are_pooled_in_one_window(make: Make) -> None:
    processes = [make(RATED) for _ in range(10)]
    for process in processes:
        process.acquire().failure()
    assert processes[0].get_status()["state"] == "open"


def test_a_low_rate_of_failures_does_not_trip_it(make: Make) -> None:
    breaker = make(RATED)
    for number in range(100):
        permit = breaker.acquire()
        permit.failure() if number % 4 == 3 else permit.success()
    status = breaker.get_status()
    assert (status["state"], status["failure_count"], status["window"]["calls"]) == ("closed", 25, 100)


def test_failures_leave_the_window(make: Make, until: Until) -> None:
    config = BreakerConfig(counting=Counting.RATE, minimum_calls=5, window_s=0.1, open_s=600)
    breaker = make(config)
    for _ in range(4):
        breaker.acquire().failure()
    assert breaker.get_failure_count() == 4
    until(lambda: breaker.get_failure_count() == 0)
    breaker.acquire().failure()
    assert breaker.get_status()["state"] == "closed"


def test_slow_calls_trip_it_though_they_succeed(make: Make) -> None:
    breaker = make(
        BreakerConfig(counting=Counting.RATE, minimum_calls=4, slow_call_s=1, slow_rate=0.75, open_s=600)
    )
    breaker.acquire().success(0.2)
    breaker.acquire().success(1.0)
    breaker.acquire().success(3.0)
    assert breaker.get_status()["state"] == "closed"
    breaker.acquire().success(2.0)
    assert breaker.get_status()["state"] == "open"


def test_a_slow_probe_does_not_close_it(make: Make, until: Until) -> None:
    breaker = make(
        BreakerConfig(
            counting=Counting.RATE, minimum_calls=5, slow_call_s=1, open_s=0.02, success_threshold=1
        )
    )
    half_open(breaker, until)
    breaker.acquire().success(1.5)
    assert breaker.get_status()["state"] == "open"


# -- overrides -----------------------------------------------------------------------------------------


def test_forced_open_rejects_everywhere_until_it_is_cleared(make: Make) -> None:
    operator, worker = make(), make()
    operator.force(State.FORCED_OPEN, owner="ann", reason="maintenance")
    assert not worker.can_execute()
    status = worker.get_status()
    assert status["state"] == "forced-open"
    assert status["underlying_state"] == "closed"
    assert status["override"] == {
        "state": "forced-open",
        "owner": "ann",
        "reason": "maintenance",
        "seconds_left": None,
    }
    operator.clear_override(owner="ann", reason="done")
    assert make().can_execute()


def test_an_override_ends_by_itself_and_says_so(make: Make, store: BreakerStore, until: Until) -> None:
    breaker = make()
    breaker.force(State.FORCED_OPEN, owner="ann", reason="deploy", ttl=timedelta(milliseconds=50))
    until(breaker.can_execute, 2.0)
    reasons = [event.reason for _, _, event in store.transitions({}, 64) if event.owner == "ann"]
    assert reasons[-2:] == ["deploy", "override expired"]


def test_a_disabled_breaker_lets_everything_through_and_counts_nothing(make: Make) -> None:
    breaker = make()
    breaker.force(State.DISABLED, owner="ann", reason="false alarms")
    for _ in range(20):
        permit = breaker.acquire()
        assert permit.kind is Kind.FREE
        permit.failure()
    breaker.record_failure()
    assert breaker.get_failure_count() == 0


def test_a_shadow_breaker_changes_as_it_would_and_rejects_nothing(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.05, success_threshold=1, lease_s=60))
    breaker.force(State.SHADOW, owner="ann", reason="trying thresholds")
    for _ in range(5):
        breaker.acquire().failure()
    assert breaker.get_status()["underlying_state"] == "open"
    for _ in range(3):
        breaker.acquire().failure()
    assert breaker.shadow_rejections == 3
    until(lambda: breaker.acquire().kind is Kind.PROBE)
    assert breaker.acquire().kind is Kind.FREE, "the lease is taken; the call goes through all the same"
    status = breaker.get_status()
    assert (status["state"], status["underlying_state"]) == ("shadow", "half-open")


def test_an_override_survives_every_transition(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, success_threshold=1))
    breaker.force(State.SHADOW, owner="ann", reason="trying")
    seen = set()
    for _ in range(5):
        breaker.acquire().failure()
    seen.add(breaker.get_status()["underlying_state"])
    permit = breaker.acquire()
    while permit.kind is not Kind.PROBE:
        permit.release()
        permit = breaker.acquire()
    seen.add(breaker.get_status()["underlying_state"])
    permit.success()
    seen.add(breaker.get_status()["underlying_state"])
    breaker.open_for(0.01)
    breaker.manual_reset(owner="ben")
    assert seen == {"open", "half-open", "closed"}
    status = breaker.get_status()
    assert status["override"]["owner"] == "ann"
    assert status["state"] == "shadow"


def test_results_of_calls_from_before_an_override_count_for_nothing(make: Make) -> None:
    breaker = make()
    before = [breaker.acquire() for _ in range(10)]
    breaker.force(State.SHADOW, owner="ann", reason="trying")
    for permit in before:
        permit.failure()
    assert breaker.get_failure_count() == 0


@pytest.mark.parametrize("state", [State.CLOSED, State.OPEN, State.HALF_OPEN])
def test_only_an_override_can_be_forced(make: Make, state: State) -> None:
    with pytest.raises(ValueError, match="no override"):
        make().force(state, owner="ann", reason="x")


def test_an_override_needs_an_owner_a_reason_and_a_positive_duration(make: Make) -> None:
    with pytest.raises(ValueError, match="owner"):
        make().force(State.DISABLED, owner="", reason="x")
    with pytest.raises(ValueError, match="positive"):
        make().force(State.DISABLED, owner="ann", reason="x", ttl=timedelta(0))


# -- reset, hold, pacing -------------------------------------------------------------------------------


def test_a_manual_reset_closes_it_for_everyone_within_the_refresh(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=600, open_refresh_s=0.05)
    operator, worker = make(config), make(config)
    open_it(worker)
    assert not worker.can_execute()
    operator.manual_reset(owner="ann", reason="fixed")
    until(worker.can_execute, 2.0)
    assert worker.get_status()["failure_count"] == 0


def test_a_retry_after_opens_it_for_so_long_and_no_longer(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=600))
    breaker.open_for(timedelta(seconds=0.08), reason="429")
    started = time.monotonic()
    assert not breaker.can_execute()
    assert breaker.get_status()["trips"] == 0, "the open period does not grow by it"
    until(breaker.can_execute, 2.0)
    assert time.monotonic() - started >= 0.07


def test_of_two_retry_afters_the_longer_one_holds(make: Make) -> None:
    breaker = make(BreakerConfig(open_s=600))
    breaker.open_for(300)
    breaker.open_for(10)
    assert breaker.get_status()["retry_after_seconds"] > 250
    breaker.open_for(10**9)
    assert breaker.get_status()["retry_after_seconds"] <= breaker.config.open_cap_s


def test_after_closing_calls_are_paced_and_then_free(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=0.02, drain_s=0.8, drain_per_s=10, snapshot_s=0)
    breaker = make(config)
    close_it(breaker, until)
    others = [make(config) for _ in range(4)]
    admitted = sum(others[number % 4].can_execute() for number in range(40))
    assert 10 <= admitted <= 15, "a second's worth at once, from all processes together"
    with pytest.raises(CircuitBreakerError) as caught:
        others[0].acquire()
    assert caught.value.retry_at is not None
    until(lambda: breaker.get_status()["paced_seconds"] == 0)
    assert all(others[number % 4].can_execute() for number in range(40))


def test_the_open_period_grows_only_while_it_keeps_failing(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, open_growth=2, failure_threshold=1, success_threshold=1))
    half_open(breaker, until)
    breaker.acquire().failure()
    assert breaker.get_status()["trips"] == 2
    until(lambda: breaker.flush().open_left_ms == 0)  # type: ignore[union-attr]  # a store always answers here
    breaker.acquire().success()
    healthy_since = time.monotonic()
    until(lambda: time.monotonic() - healthy_since > 0.06)
    breaker.acquire().failure()
    assert breaker.get_status()["trips"] == 1


# -- retry budget --------------------------------------------------------------------------------------


def test_the_retry_budget_is_shared_and_successes_refund_it(make: Make) -> None:
    config = BreakerConfig(
        failure_threshold=1000, budget=RetryBudget(capacity=20, retry_cost=5, refund=5, refill_per_s=0)
    )
    ours, theirs = make(config), make(config)
    assert [ours.acquire().failure(cost=5), theirs.acquire().failure(cost=5)] == [True, True]
    assert [ours.acquire().failure(cost=5), theirs.acquire().failure(cost=5)] == [True, True]
    assert not ours.acquire().failure(cost=5)
    theirs.acquire().success()
    theirs.flush()
    assert ours.acquire().failure(cost=5)
    assert not ours.acquire().failure(cost=5)


def test_the_retry_budget_refills_with_time(make: Make, until: Until) -> None:
    config = BreakerConfig(failure_threshold=1000, budget=RetryBudget(capacity=1, refill_per_s=20))
    breaker = make(config)
    assert breaker.acquire().failure(cost=1)
    assert not breaker.acquire().failure(cost=1)
    until(lambda: breaker.acquire().failure(cost=1), 2.0)


def test_a_failure_without_a_retry_costs_nothing(make: Make) -> None:
    breaker = make(BreakerConfig(failure_threshold=1000, budget=RetryBudget(capacity=1, refill_per_s=0)))
    for _ in range(5):
        assert breaker.acquire().failure()
    assert breaker.acquire().failure(cost=1)


# -- leases --------------------------------------------------------------------------------------------


def test_a_renewed_lease_lives_on(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=0.5, success_threshold=1)
    breaker = make(config)
    half_open(breaker, until)
    probe = breaker.acquire("task-1:0")
    start = time.monotonic()
    while time.monotonic() - start < 0.7:
        assert probe.renew()
        assert not make(config).can_execute()
    probe.success()
    assert breaker.get_status()["state"] == "closed"


def test_a_dead_lease_cannot_be_renewed_into_a_later_period(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=60, open_growth=1)
    breaker = make(config)
    half_open(breaker, until)
    probe = breaker.acquire("task-1:0")
    breaker.open_for(0.02)
    until(lambda: breaker.flush().open_left_ms == 0)  # type: ignore[union-attr]  # a store always answers here
    assert not probe.renew()
    assert make(config).can_execute(), "the attempt left no lease behind"


def test_the_same_call_asking_again_keeps_its_lease(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=60)
    breaker = make(config)
    half_open(breaker, until)
    assert breaker.acquire("task-1:0").kind is Kind.PROBE
    assert make(config).acquire("task-1:0").kind is Kind.PROBE
    with pytest.raises(CircuitBreakerError):
        make(config).acquire("task-2:0")


def test_a_result_of_another_epoch_changes_nothing(store: BreakerStore, name: str) -> None:
    config = BreakerConfig(open_s=600)
    for _ in range(5):
        opened = store.fail(name, config, NOTHING, epoch=0, cost=0)
    for epoch in (0, opened.epoch - 1, opened.epoch + 1):
        for reply in (
            store.fail(name, config, NOTHING, epoch=epoch, cost=0),
            store.sync(name, config, Batch(epoch, 5, 0, 0)),
            store.settle(name, config, epoch=epoch, permit_id="x", outcome=ProbeOutcome.OK, cost=0),
        ):
            assert not reply.counted
            assert not reply.transitions
            assert (reply.state, reply.epoch, reply.failures) == (opened.state, opened.epoch, 5)


def test_a_success_that_ended_before_the_last_failure_does_not_end_the_row(
    store: BreakerStore, name: str
) -> None:
    config = BreakerConfig(open_s=600)
    for _ in range(4):
        store.fail(name, config, NOTHING, epoch=0, cost=0)
    assert store.sync(name, config, Batch(0, 1, 0, age_ms=60_000)).failures == 4
    assert store.sync(name, config, Batch(0, 1, 0, age_ms=0)).failures == 0


# -- the record ----------------------------------------------------------------------------------------


def test_every_change_of_epoch_is_one_transition_and_cursors_read_on(
    make: Make, store: BreakerStore, name: str, until: Until
) -> None:
    breaker = make(BreakerConfig(open_s=0.02, success_threshold=1))
    close_it(breaker, until)
    seen = [(cursor, event) for key, cursor, event in store.transitions({}, 64) if key == name]
    assert [(event.old, event.new) for _, event in seen] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]
    epochs = [event.epoch for _, event in seen]
    assert epochs == sorted(set(epochs))
    assert breaker.get_status()["epoch"] == epochs[-1]
    breaker.force(State.DISABLED, owner="ann", reason="noise")
    later = [event for key, _, event in store.transitions({name: seen[-1][0]}, 64) if key == name]
    assert [(event.new, event.owner, event.reason) for event in later] == [("disabled", "ann", "noise")]


def test_the_record_of_one_breaker_is_bounded(store: BreakerStore, name: str) -> None:
    config = BreakerConfig()
    breaker = CircuitBreaker(name, store, config)
    for number in range(100):
        breaker.force(State.DISABLED, owner="ann", reason=str(number))
    kept = [event for key, _, event in store.transitions({}, 1000) if key == name]
    assert len(kept) == 64
    assert kept[-1].reason == "99"


def test_the_registry_lists_what_others_opened_and_drops_what_is_idle(store: BreakerStore, name: str) -> None:
    registry = BreakerRegistry(store, Settings(), max_breakers=3)
    other_process = BreakerRegistry(store, Settings())
    for _ in range(5):
        other_process.record_failure(f"{name}-theirs")
    for number in range(10):
        registry.can_execute(f"{name}-{number}")
    assert f"{name}-9" in registry.names()
    assert f"{name}-0" not in registry.names()
    status = registry.get_status()
    assert status[f"{name}-theirs"]["state"] == "open"
    assert status[f"{name}-9"]["state"] == "closed"
    registry.manual_reset(f"{name}-theirs", owner="ann", reason="fixed")
    assert registry.get_status(f"{name}-theirs")["state"] == "closed"


@pytest.mark.parametrize("bad", ["", "a{b", "a}b", "x" * 201, "a\nb", "\x00", "\ud800"])
def test_a_name_that_would_break_a_slot_a_log_line_or_a_command_is_refused(
    store: BreakerStore, bad: str
) -> None:
    with pytest.raises(ValueError, match="breaker name"):
        CircuitBreaker(bad, store)


def test_keys_are_tagged_prefixed_and_expire(breaker_redis: Redis, name: str) -> None:
    breaker = CircuitBreaker(name, breaker_redis, BreakerConfig(open_s=30, idle_s=60))
    breaker.acquire().success()
    breaker.flush()
    assert not breaker_redis.exists(f"td:cb:{{{name}}}:s"), "a healthy breaker leaves nothing behind"
    open_it(breaker)
    keys = sorted(key.decode() for key in breaker_redis.scan_iter(match=f"*{name}*"))
    assert keys == [f"td:cb:{{{name}}}:e", f"td:cb:{{{name}}}:s"]
    assert 60_000 < breaker_redis.pttl(f"td:cb:{{{name}}}:s") <= 90_000
    assert 0 < breaker_redis.ttl(f"td:cb:{{{name}}}:e") <= 86400
    breaker.force(State.DISABLED, owner="ann", reason="x")
    assert breaker_redis.ttl(f"td:cb:{{{name}}}:s") == -1, "an override without end does not expire"
    breaker.clear_override(owner="ann", reason="x")
    assert breaker_redis.ttl(f"td:cb:{{{name}}}:s") > 0


@pytest.mark.parametrize("place", ["s", "l", "e"])
def test_what_somebody_put_in_the_place_of_a_key_is_deleted_and_the_shared_breaker_counts_again(
    breaker_redis: Redis, name: str, place: str, until: Until
) -> None:
    key = f"td:cb:{{{name}}}:{place}"
    breaker_redis.set(key, "not ours")

    def is_ours_again() -> bool:
        breaker = CircuitBreaker(name, breaker_redis, BreakerConfig(failure_threshold=1, open_s=0.001))
        if breaker.can_execute():
            breaker.record_failure()
        return breaker_redis.type(key) != b"string"

    until(is_ours_again)
    breaker = CircuitBreaker(name, breaker_redis, BreakerConfig(open_s=60))
    breaker.manual_reset(owner="ann", reason="mended")
    open_it(breaker)
    assert not CircuitBreaker(name, breaker_redis, BreakerConfig(open_s=60)).can_execute()


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "banana", "epoch": "x"},
        {"state": "open", "open_until": "inf"},
        {"state": "open", "open_until": "nan", "trips": "-1e999"},
        {"ov": "banana", "ov_until": "0"},
    ],
)
def test_a_breaker_that_somebody_garbled_keeps_nobody_out(
    breaker_redis: Redis, name: str, fields: dict[str, str]
) -> None:
    breaker_redis.hset(f"td:cb:{{{name}}}:s", mapping=fields)  # type: ignore[arg-type]  # redis-py's invariant dict
    assert CircuitBreaker(name, breaker_redis).can_execute()
