"""Counting in the process: cheap, bounded, exactly once, safe after a fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.events import ErrorHandled, ExecutionSucceeded, Outcome
from techdeck_tasks.metrics import recorder as recorder_module
from techdeck_tasks.metrics.recorder import MetricsRecorder
from techdeck_tasks.metrics.series import DROPPED, Kind
from techdeck_tasks.metrics.store import Batch
from techdeck_tasks.testing.metrics import InMemoryMetricsStore


class CountingStore(InMemoryMetricsStore):
    """Notes how often it is told, and can lose its answers."""

    def __init__(self) -> None:
        super().__init__(timedelta(hours=48))
        self.told = 0
        self.mute = False

    def add(self, batch: Batch) -> None:
        self.told += 1
        super().add(batch)
        if self.mute:
            raise ServiceUnavailableError("the answer was lost")


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def recorder(store: CountingStore) -> MetricsRecorder:
    """Its thread tells nothing within a test."""
    return MetricsRecorder(lambda: store, flush_s=3600)


def a_success(service: str = "lab") -> ExecutionSucceeded:
    return ExecutionSucceeded(
        service=service, operation="x", duration_s=0.3, attempt=0, occurred_at=datetime.now(UTC)
    )


def an_error(code: str = "TIMEOUT_ERROR") -> ErrorHandled:
    return ErrorHandled(
        error_id="1",
        error_code=code,
        severity="medium",
        recoverable=True,
        hipaa_related=False,
        service="lab",
        operation="x",
        outcome=Outcome.FAILED,
        occurred_at=datetime.now(UTC),
    )


def counted(store: InMemoryMetricsStore, kind: Kind) -> int:
    return sum(n for series, n in store.totals().items() if series.kind is kind)


def wait_until(condition: Callable[[], Any], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def test_successes_wait_and_are_told_together(store: CountingStore, recorder: MetricsRecorder) -> None:
    for _ in range(1000):
        recorder.on_event(a_success())
    assert store.told == 0
    assert recorder.flush()
    assert store.told <= 2, "one batch a minute"
    assert counted(store, Kind.SUCCESS) == 1000
    assert counted(store, Kind.DURATION_SUM) == 300_000_000


def test_an_error_is_told_before_the_listener_returns(
    store: CountingStore, recorder: MetricsRecorder
) -> None:
    recorder.on_event(a_success())
    recorder.on_event(an_error())
    assert counted(store, Kind.ERROR) == 1
    assert counted(store, Kind.SUCCESS) == 1, "what waited went along"


def test_an_idle_process_tells_its_last_successes_and_ends_its_thread(store: CountingStore) -> None:
    recorder = MetricsRecorder(lambda: store, flush_s=0.01)
    recorder.on_event(a_success())
    wait_until(lambda: counted(store, Kind.SUCCESS) == 1)
    wait_until(lambda: recorder._teller is None)
    recorder.on_event(a_success())
    wait_until(lambda: counted(store, Kind.SUCCESS) == 2)


def test_while_the_store_is_away_one_call_learns_it_and_nothing_is_lost(
    store: CountingStore, recorder: MetricsRecorder
) -> None:
    store.away = True
    for _ in range(50):
        recorder.on_event(an_error())
    assert store.told == 1
    assert not recorder.flush()
    store.away = False
    assert recorder.flush()
    recorder.on_event(an_error())
    assert counted(store, Kind.ERROR) == 51


def test_a_lost_answer_does_not_count_twice(store: CountingStore, recorder: MetricsRecorder) -> None:
    store.mute = True
    recorder.on_event(an_error())
    recorder.on_event(an_error())
    store.mute = False
    assert recorder.flush()
    assert counted(store, Kind.ERROR) == 2


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    store: CountingStore, recorder: MetricsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_PENDING", 5)
    store.away = True
    recorder.on_event(an_error("FIRST"))  # is already on its way when the outage is found
    for number in range(20):
        recorder.on_event(an_error(f"CODE_{number}"))
    recorder.on_event(an_error("CODE_0"))
    store.away = False
    assert recorder.flush()
    assert store.totals()[DROPPED] == 15
    assert counted(store, Kind.ERROR) == 7


def test_threads_that_count_at_once_lose_nothing(store: CountingStore, recorder: MetricsRecorder) -> None:
    def work() -> None:
        for _ in range(200):
            recorder.on_event(a_success())
            recorder.on_event(an_error())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.flush()
    assert counted(store, Kind.SUCCESS) == 1600
    assert counted(store, Kind.ERROR) == 1600


def test_a_forked_child_tells_its_own_counts_and_not_its_parents(store: CountingStore) -> None:
    recorder = MetricsRecorder(lambda: store, flush_s=3600)
    recorder.on_event(a_success())
    recorder._lock.acquire()  # as a thread of the parent may hold it
    child = os.fork()
    if child == 0:
        recorder.on_event(a_success("child"))
        recorder.flush()
        services = {series.service for series in store.totals()}
        os._exit(0 if services == {"child"} else 1)
    recorder._lock.release()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    recorder.flush()
    assert counted(store, Kind.SUCCESS) == 1


def test_an_event_costs_a_success_only_microseconds(recorder: MetricsRecorder) -> None:
    event = a_success()
    took_s = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(500):
            recorder.on_event(event)
        took_s.append((time.perf_counter() - began) / 500)
    assert min(took_s) < 20e-6
