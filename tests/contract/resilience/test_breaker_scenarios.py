"""What any shared circuit breaker owes its users: the scenarios that the peers do not all pass."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from techdeck_tasks.errors import CircuitBreakerError
from techdeck_tasks.events import BreakerTransition, Event
from techdeck_tasks.resilience.breaker import AwayPolicy, BreakerConfig, BreakerStore, CircuitBreaker, State
from techdeck_tasks.resilience.breaker.permit import Kind

Make = Callable[..., CircuitBreaker]
Until = Callable[..., None]

NEVER_AGAIN_S = 600.0


class Boom(Exception):  # noqa: N818 - short, for it is everywhere
    """The other side failed."""


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.acquire().failure()


def state(breaker: CircuitBreaker) -> str:
    return str(breaker.get_status()["state"])


def admits(breaker: CircuitBreaker) -> bool:
    try:
        breaker.acquire().release()
    except CircuitBreakerError:
        return False
    return True


def open_it(breaker: CircuitBreaker) -> None:
    fail(breaker, breaker.config.failure_threshold)
    assert state(breaker) == "open"


def probe_when_due(breaker: CircuitBreaker, until: Until) -> None:
    until(lambda: breaker.flush() is not None and breaker.flush().open_left_ms == 0)  # type: ignore[union-attr]  # checked before


def test_a_closed_breaker_passes_results_and_exceptions_through(make: Make) -> None:
    breaker = make()

    @breaker
    def answer(value: int) -> int:
        if value < 0:
            raise Boom
        return value

    assert answer(41) == 41
    with pytest.raises(Boom):
        answer(-1)
    assert breaker.get_failure_count() == 1


def test_a_success_ends_a_row_of_failures(make: Make) -> None:
    breaker = make()
    fail(breaker, 4)
    breaker.acquire().success()
    assert breaker.get_failure_count() == 0
    fail(breaker, 4)
    assert state(breaker) == "closed"


def test_a_success_seen_by_one_process_ends_the_row_that_another_counts(make: Make) -> None:
    ours, theirs = make(), make()
    fail(ours, 4)
    theirs.acquire().success()
    theirs.flush()
    fail(ours)
    assert state(ours) == "closed"
    assert theirs.get_failure_count() == 1


def test_it_trips_at_exactly_the_threshold(make: Make) -> None:
    breaker = make(BreakerConfig(failure_threshold=5, open_s=NEVER_AGAIN_S))
    fail(breaker, 4)
    assert state(breaker) == "closed"
    fail(breaker)
    assert state(breaker) == "open"


def test_failures_of_two_processes_add_up_to_the_threshold(make: Make) -> None:
    ours, theirs = make(), make()
    fail(ours, 2)
    fail(theirs, 2)
    assert state(ours) == "closed"
    fail(ours)
    assert state(theirs) == "open"


def test_an_open_breaker_refuses_fast_and_says_when_to_come_back(make: Make) -> None:
    breaker = make(BreakerConfig(open_s=60))
    open_it(breaker)
    started = time.perf_counter()
    for _ in range(1000):
        assert not breaker.can_execute()
    assert time.perf_counter() - started < 0.5
    with pytest.raises(CircuitBreakerError) as caught:
        breaker.acquire()
    details = caught.value.details
    assert details["failure_count"] == 5
    assert details["threshold"] == 5
    assert caught.value.retry_at is not None
    assert timedelta(seconds=55) < caught.value.retry_at - datetime.now(UTC) <= timedelta(seconds=60)


def test_it_stays_open_until_its_deadline(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.08))
    opened = time.monotonic()
    open_it(breaker)
    until(lambda: admits(breaker))
    assert time.monotonic() - opened >= 0.08


def test_enough_successful_probes_close_it(make: Make, until: Until) -> None:
    breaker = make()
    open_it(breaker)
    probe_when_due(breaker, until)
    first = breaker.acquire()
    assert first.kind is Kind.PROBE
    first.success()
    assert state(breaker) == "half-open"
    breaker.acquire().success()
    assert state(breaker) == "closed"
    assert breaker.get_failure_count() == 0


def test_a_failed_probe_opens_it_again_for_longer(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.03, open_growth=3))
    open_it(breaker)
    probe_when_due(breaker, until)
    fail(breaker)
    status = breaker.get_status()
    assert status["state"] == "open"
    assert status["trips"] == 2
    assert 0.03 < status["retry_after_seconds"] <= 0.09


def test_an_ignored_exception_counts_as_nothing_while_closed(make: Make) -> None:
    breaker = make(BreakerConfig(failure_threshold=2, ignored=(KeyError,)))
    fail(breaker)
    for _ in range(5):
        with pytest.raises(KeyError), breaker.acquire():
            raise KeyError
    assert breaker.get_failure_count() == 1


def test_an_ignored_exception_frees_the_lease_and_neither_closes_nor_opens(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, success_threshold=1, lease_s=60, ignored=(KeyError,)))
    open_it(breaker)
    probe_when_due(breaker, until)
    for _ in range(3):
        permit = breaker.acquire()
        assert permit.kind is Kind.PROBE
        with pytest.raises(KeyError), permit:
            raise KeyError
    assert state(breaker) == "half-open"
    breaker.acquire().success()
    assert state(breaker) == "closed"


def test_a_base_exception_counts_as_nothing_and_frees_the_lease(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, lease_s=60))
    with pytest.raises(KeyboardInterrupt), breaker.acquire():
        raise KeyboardInterrupt
    assert breaker.get_failure_count() == 0
    open_it(breaker)
    probe_when_due(breaker, until)
    with pytest.raises(SystemExit), breaker.acquire():
        raise SystemExit
    assert breaker.acquire().kind is Kind.PROBE


def test_names_are_isolated_from_each_other(store: BreakerStore, name: str) -> None:
    one = CircuitBreaker(f"{name}-1", store)
    other = CircuitBreaker(f"{name}-2", store)
    open_it(one)
    assert state(other) == "closed"
    assert admits(other)


def test_what_one_instance_opens_every_other_one_finds_open(make: Make) -> None:
    open_it(make(BreakerConfig(open_s=NEVER_AGAIN_S)))
    assert not make(BreakerConfig(open_s=NEVER_AGAIN_S)).can_execute()


def test_a_cached_view_learns_of_an_opening_within_its_age(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=NEVER_AGAIN_S, snapshot_s=0.02)
    ours, theirs = make(config), make(config)
    assert theirs.can_execute()
    open_it(ours)
    until(lambda: not theirs.can_execute(), 1.0)


def test_threads_that_fail_at_once_trip_it_once(make: Make) -> None:
    events: list[Event] = []

    class Listener:
        def on_event(self, event: Event) -> None:
            events.append(event)

    breaker = make(BreakerConfig(failure_threshold=10, open_s=NEVER_AGAIN_S), listener=Listener())
    permits = [breaker.acquire() for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda permit: permit.failure(), permits))
    status = breaker.get_status()
    assert (status["state"], status["trips"], status["failure_count"]) == ("open", 1, 10)
    assert [event.new_state for event in events if isinstance(event, BreakerTransition)] == ["open"]


def test_of_many_threads_one_gets_the_probe(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, lease_s=60))
    open_it(breaker)
    probe_when_due(breaker, until)
    barrier = threading.Barrier(16)

    def ask(_: int) -> bool:
        other = make(breaker.config)
        barrier.wait()
        return other.can_execute()

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16))) == 1


def test_as_many_probes_run_at_once_as_are_permitted(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, lease_s=60, probes=3))
    open_it(breaker)
    probe_when_due(breaker, until)
    granted = [other for other in (make(breaker.config) for _ in range(8)) if other.can_execute()]
    assert len(granted) == 3


def test_a_probe_that_never_reports_delays_recovery_by_no_more_than_its_lease(
    make: Make, until: Until
) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=0.3, success_threshold=1, snapshot_s=0.01)
    breaker = make(config)
    open_it(breaker)
    probe_when_due(breaker, until)
    lost = breaker.acquire()
    leased = time.monotonic()
    other = make(config)
    assert not other.can_execute()
    until(other.can_execute, 2.0)
    assert 0.29 <= time.monotonic() - leased < 1.5
    lost.failure()
    assert state(other) == "half-open", "a result after the lease's end counts for nothing"
    other.record_success()
    assert state(other) == "closed"


def test_denied_probes_do_not_prolong_a_leaked_lease(make: Make, until: Until) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=0.15, snapshot_s=0)
    breaker = make(config)
    open_it(breaker)
    probe_when_due(breaker, until)
    breaker.acquire()
    other = make(config)
    end = time.monotonic() + 1.0
    while not other.can_execute():
        assert time.monotonic() < end, "traffic keeps the lease alive"


def test_a_late_success_of_an_old_period_does_not_close_it(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, success_threshold=1, lease_s=60))
    before = breaker.acquire()
    open_it(breaker)
    probe_when_due(breaker, until)
    probe = breaker.acquire()
    probe.failure()
    before.success()
    assert state(breaker) == "open"
    probe_when_due(breaker, until)
    late = make(breaker.config).acquire()
    breaker.flush()
    before.success()
    assert state(breaker) == "half-open"
    late.success()
    assert state(breaker) == "closed"


def test_late_failures_of_the_closed_period_do_not_open_a_half_open_one(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, lease_s=60))
    slow_calls = [breaker.acquire() for _ in range(10)]
    open_it(breaker)
    probe_when_due(breaker, until)
    probe = breaker.acquire()
    for call in slow_calls:
        call.failure()
    assert state(breaker) == "half-open"
    probe.success()
    breaker.acquire().success()
    assert state(breaker) == "closed"


def test_a_permit_counts_once_however_often_it_is_settled(make: Make) -> None:
    breaker = make()
    permit = breaker.acquire()
    permit.failure()
    permit.failure()
    permit.success()
    permit.release()
    assert breaker.get_failure_count() == 1


def test_calls_may_nest(make: Make) -> None:
    breaker = make()
    with breaker.acquire(), breaker.acquire(), pytest.raises(Boom), breaker.acquire():
        raise Boom
    assert breaker.get_failure_count() == 0, "the outer successes ended the row"


def test_calls_are_not_serialised(make: Make) -> None:
    breaker = make()
    everyone_inside = threading.Barrier(8)

    def call(_: int) -> None:
        with breaker.acquire():
            everyone_inside.wait(5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))


def test_another_breakers_rejection_is_no_failure(make: Make, store: BreakerStore, name: str) -> None:
    inner = CircuitBreaker(f"{name}-inner", store, BreakerConfig(open_s=NEVER_AGAIN_S))
    open_it(inner)
    outer = make()
    for _ in range(6):
        with pytest.raises(CircuitBreakerError), outer.acquire(), inner.acquire():
            pass
    assert outer.get_failure_count() == 0


def test_the_specifications_calls_drive_it_round(make: Make, until: Until) -> None:
    breaker = make()
    for _ in range(5):
        assert breaker.can_execute()
        breaker.record_failure()
    assert not breaker.can_execute()
    assert breaker.get_failure_count() == breaker.get_threshold() == 5
    until(breaker.can_execute)
    breaker.record_success()
    assert breaker.get_status()["success_count"] == 1
    assert breaker.can_execute()
    breaker.record_success()
    assert state(breaker) == "closed"


def test_failures_reported_without_asking_first_count_too(make: Make) -> None:
    breaker = make()
    for _ in range(5):
        breaker.record_failure()
    assert state(breaker) == "open"


def test_a_report_from_another_thread_settles_the_probe(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, success_threshold=1, lease_s=60))
    open_it(breaker)
    until(breaker.can_execute)
    other = threading.Thread(target=breaker.record_success)
    other.start()
    other.join()
    assert state(breaker) == "closed"


def test_a_generator_is_called_until_its_last_item(make: Make) -> None:
    breaker = make()

    @breaker
    def rows(*, ok: bool = False) -> Iterator[int]:
        yield 1
        if not ok:
            raise Boom

    @breaker
    async def pages() -> AsyncIterator[int]:
        yield 1
        raise Boom

    class Client:
        async def __call__(self) -> None:
            raise Boom

    fetch = breaker(Client())

    async def take() -> list[int]:
        return [page async for page in pages()]

    assert list(rows(ok=True)) == [1]
    assert next(rows()) == 1, "who leaves early has seen no failure"
    for _ in range(3):
        with pytest.raises(Boom):
            list(rows())
    with pytest.raises(Boom):
        asyncio.run(take())
    with pytest.raises(Boom):
        asyncio.run(fetch())
    with pytest.raises(CircuitBreakerError):
        next(rows())


def test_async_calls_go_through_the_same_breaker(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, success_threshold=2))

    @breaker
    async def call(*, ok: bool) -> str:
        await asyncio.sleep(0)
        if not ok:
            raise Boom
        return "done"

    async def scenario() -> None:
        assert await call(ok=True) == "done"
        for _ in range(5):
            with pytest.raises(Boom):
                await call(ok=False)
        with pytest.raises(CircuitBreakerError):
            await call(ok=True)
        probe_when_due(breaker, until)
        assert await breaker.can_execute_async()
        await breaker.record_success_async()
        async with await breaker.acquire_async() as permit:
            assert permit.kind is Kind.PROBE
        assert state(breaker) == "closed"

    asyncio.run(scenario())


def test_a_cancelled_async_probe_frees_its_lease(make: Make, until: Until) -> None:
    breaker = make(BreakerConfig(open_s=0.02, lease_s=60))
    open_it(breaker)
    probe_when_due(breaker, until)

    async def hang() -> None:
        async with await breaker.acquire_async():
            await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(hang())
        while (status := await asyncio.to_thread(breaker.get_status))["state"] != "half-open":
            assert status["state"] == "open"
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    until(breaker.can_execute, 2.0)


def test_the_clients_wall_clock_may_be_wrong_and_may_step_back(make: Make, until: Until) -> None:
    class Skewed:
        def __init__(self) -> None:
            self.offset = timedelta(days=-400)

        def now(self) -> datetime:
            self.offset -= timedelta(hours=1)
            return datetime.now(UTC) + self.offset

        def monotonic(self) -> float:
            return time.monotonic()

        def sleep(self, seconds: float) -> None:
            raise AssertionError

    skewed = make(BreakerConfig(open_s=0.05), clock=Skewed())
    open_it(skewed)
    assert not skewed.can_execute()
    assert not make().can_execute()
    until(skewed.can_execute, 1.0)
    skewed.record_success()
    assert skewed.can_execute()
    skewed.record_success()
    assert state(make()) == "closed"


def test_a_random_walk_of_400_calls_agrees_with_a_model_of_ten_lines(make: Make) -> None:
    breaker = make(BreakerConfig(failure_threshold=3, open_s=NEVER_AGAIN_S))
    rng = random.Random(7)
    failures, is_open = 0, False
    for _ in range(400):
        if is_open:
            assert not breaker.can_execute()
            breaker.manual_reset()
            failures, is_open = 0, False
            continue
        permit = breaker.acquire()
        if rng.random() < 0.5:
            permit.failure()
            failures += 1
            is_open = failures >= 3
        else:
            permit.success()
            failures = 0
        assert (state(breaker) == "open") is is_open
        if not is_open:
            assert breaker.get_failure_count() == failures


@pytest.mark.parametrize("away", list(AwayPolicy))
def test_the_policy_for_absence_changes_nothing_while_the_store_answers(make: Make, away: AwayPolicy) -> None:
    breaker = make(BreakerConfig(away=away, open_s=NEVER_AGAIN_S))
    assert breaker.can_execute()
    open_it(breaker)
    assert not breaker.can_execute()
    assert breaker.get_status()["state"] == State.OPEN
