"""What counting costs a task, and whether a day reads as fast after ten million errors as after ten thousand.

The errors of a day are spread evenly over its minutes and over six series, so that each occurs in each
minute also where there are few: the cost of a query is that of its series. They are told to the store in
batches whose counts carry the weight: Redis ends up with the same hashes as after so many events.

Run: python -m benchmarks metrics
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from statistics import median

from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.events import ErrorHandled, Event, ExecutionSucceeded, Outcome
from techdeck_tasks.metrics.buckets import minute_of
from techdeck_tasks.metrics.series import Kind, Series
from techdeck_tasks.metrics.store import Batch, MetricsStore
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.settings import load_settings

FEW, MANY = 10_000, 10_000_000
ROUNDS = 40
DAY_RATIO_GOAL = 1.2
SUCCESS_GOAL_US = 10.0
MINUTES = 24 * 60


def main() -> None:
    with EmbeddedRedis() as server:
        runtime = Runtime(load_settings(redis_url=server.url, redis_timeout_seconds=5))
        _events(runtime)
        runtime.redis.flushall()
        took = {}
        for errors in (FEW, MANY):
            _fill(runtime.metrics_store, errors)
            took[errors] = _time(runtime.metrics.get_error_statistics, ROUNDS)
            counted = runtime.metrics.get_error_statistics()["total_errors"]
            print(f"  a day with {counted:>12,} errors   {took[errors] * 1000:7.2f} ms a query")
            used: int = runtime.redis.info("memory")["used_memory_dataset"]
            print(f"  {'Redis holds':34} {used / 2**20:7.2f} MiB")
        ratio = took[MANY] / took[FEW]
        verdict = "met" if ratio <= DAY_RATIO_GOAL else "missed"
        print(f"  {'ratio':34} {ratio:7.2f}   goal {DAY_RATIO_GOAL}: {verdict}")


def _events(runtime: Runtime) -> None:
    now = datetime.now(UTC)
    success = ExecutionSucceeded(service="lab", operation="a", duration_s=0.02, attempt=0, occurred_at=now)
    error = ErrorHandled(
        error_id="1",
        error_code="TIMEOUT_ERROR",
        severity="medium",
        recoverable=True,
        hipaa_related=False,
        service="lab",
        operation="a",
        outcome=Outcome.FAILED,
        occurred_at=now,
    )
    for name, event, number in (("success", success, 5000), ("error, told to Redis", error, 200)):
        took_us = _time(partial(_tell, runtime, event, number), 9) / number * 1e6
        goal = ""
        if event is success:
            goal = f"   goal {SUCCESS_GOAL_US:g}: {'met' if took_us <= SUCCESS_GOAL_US else 'missed'}"
        print(f"  {name:34} {took_us:7.1f} us{goal}")


def _tell(runtime: Runtime, event: Event, number: int) -> None:
    for _ in range(number):
        runtime.metrics_recorder.on_event(event)


def _fill(store: MetricsStore, errors: int) -> None:
    """Count `errors` in the last day, less what is there already."""
    last = minute_of(datetime.now(UTC))
    before = sum(n for series, n in store.totals().items() if series.kind is Kind.ERROR)
    series = [
        Series(Kind.ERROR, f"service-{one % 2}", f"operation-{one % 2}", f"CODE_{one % 3}", "medium")
        for one in range(6)
    ]
    each, rest = divmod(errors - before, MINUTES * len(series))
    producer = uuid.uuid4().hex
    for offset in range(MINUTES - 1, -1, -1):
        counts = {one: each + (offset * len(series) + index < rest) for index, one in enumerate(series)}
        store.add(Batch(producer, MINUTES - offset, last - offset, {s: n for s, n in counts.items() if n}))


def _time(call: Callable[[], object], rounds: int) -> float:
    """Return the median of the seconds that `call` takes."""
    took_s = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        took_s.append(time.perf_counter() - began)
    return median(took_s)
