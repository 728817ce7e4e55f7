"""What every store of metrics does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.metrics import MetricsStore, RedisMetricsStore
from techdeck_tasks.metrics.buckets import Grain, Span, minute_of, summed
from techdeck_tasks.metrics.series import Kind, Series
from techdeck_tasks.metrics.store import Batch
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis
from techdeck_tasks.testing.metrics import InMemoryMetricsStore

if TYPE_CHECKING:
    from redis import Redis

FAILED = Series(Kind.ERROR, "lab", "lab.import", "TIMEOUT_ERROR", "medium", recoverable=True)
RAN = Series(Kind.SUCCESS, "lab", "lab.import")


def now_minute() -> int:
    return minute_of(datetime.now(UTC))


def batch(sequence: int, minute: int | None = None, producer: str = "one", **counts: int) -> Batch:
    named = {"failed": FAILED, "ran": RAN}
    return Batch(
        producer,
        sequence,
        now_minute() if minute is None else minute,
        {named[name]: n for name, n in counts.items()},
    )


def hour(minute: int) -> Span:
    return Span(Grain.HOUR, minute // 60)


def test_batches_of_two_processes_add_up_in_their_minute_their_hour_and_the_totals(
    store: MetricsStore,
) -> None:
    minute = now_minute() - 1
    store.add(batch(1, minute, failed=1, ran=4))
    store.add(batch(1, minute, producer="two", failed=2))
    for bucket in store.read([Span(Grain.MINUTE, minute), hour(minute)]):
        assert bucket.counts == {FAILED: 3, RAN: 4}
    assert store.totals() == {FAILED.lifetime(): 3, RAN.lifetime(): 4}


def test_a_batch_that_is_told_twice_counts_once(store: MetricsStore) -> None:
    told = batch(1, failed=1)
    store.add(told)
    store.add(told)
    store.add(batch(2, told.minute, failed=5))
    assert store.totals() == {FAILED.lifetime(): 6}


def test_what_comes_late_is_counted_when_it_happened(store: MetricsStore) -> None:
    late = now_minute() - 120
    store.add(batch(1, late, failed=1))
    assert [b.counts for b in store.read([Span(Grain.MINUTE, late), hour(late)])] == [{FAILED: 1}] * 2
    assert store.read([Span(Grain.MINUTE, now_minute())])[0].counts == {}


def test_a_clock_that_is_ahead_counts_in_the_present(store: MetricsStore) -> None:
    ahead = now_minute() + 90
    store.add(batch(1, ahead, failed=1))
    present = [hour(now_minute() - 60), hour(now_minute())]
    assert summed(store.read(present)) == {FAILED: 1}
    assert store.read([Span(Grain.MINUTE, ahead)])[0].counts == {}


def test_what_is_older_than_the_retention_is_in_the_totals_alone(store: MetricsStore) -> None:
    old = now_minute() - 60 * 60
    store.add(batch(1, old, failed=1))
    assert [b.counts for b in store.read([Span(Grain.MINUTE, old), hour(old)])] == [{}, {}]
    assert store.totals() == {FAILED.lifetime(): 1}


def test_minutes_are_forgotten_after_25_hours_and_their_hours_are_not(store: MetricsStore) -> None:
    old = now_minute() - 26 * 60
    store.add(batch(1, old, failed=1))
    assert [b.counts for b in store.read([Span(Grain.MINUTE, old), hour(old)])] == [{}, {FAILED: 1}]


def test_names_beyond_the_bound_are_counted_as_other(make_store: Callable[..., MetricsStore]) -> None:
    store = make_store(max_series=3)
    minute = now_minute()
    for number in range(10):
        series = FAILED._replace(service=f"service-{number}")
        store.add(Batch("one", number + 1, minute, {series: 1}))
    store.add(Batch("one", 11, minute, {FAILED._replace(service="service-0"): 1}))
    for counts in (store.read([hour(minute)])[0].counts, store.totals()):
        by_service = {series.service: n for series, n in counts.items()}
        assert by_service == {"service-0": 2, "service-1": 1, "service-2": 1, "other": 7}


def test_every_key_in_redis_expires_but_the_totals_and_all_are_in_one_slot(metrics_redis: Redis) -> None:
    metrics_redis.flushall()
    RedisMetricsStore(metrics_redis, timedelta(hours=48)).add(batch(1, failed=1))
    keys: Any = metrics_redis.keys()
    lifetimes = {key.decode().split(":")[3]: metrics_redis.ttl(key) for key in keys}
    assert lifetimes.pop("total") == -1
    assert 25 * 3600 <= lifetimes["minute"] <= 25 * 3600 + 60
    assert 48 * 3600 <= lifetimes["hour"] <= 49 * 3600
    assert 0 < lifetimes["producer"] <= 3600
    assert {key.split(b"{")[1].split(b"}")[0] for key in keys} == {b"all"}


@pytest.mark.parametrize("kind", ["redis", "memory"])
def test_a_store_that_is_away_says_so(kind: str) -> None:
    store: MetricsStore
    if kind == "memory":
        store = InMemoryMetricsStore(timedelta(hours=1))
        store.away = True
    else:
        gone = connect_redis(Settings(redis_url="redis://127.0.0.1:1/0"))
        store = RedisMetricsStore(gone, timedelta(hours=1))
    for call in (lambda: store.add(batch(1, failed=1)), lambda: store.read([hour(1)]), store.totals):
        with pytest.raises(ServiceUnavailableError):
            call()
