"""Redis behind Sentinel and as a cluster, by URL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.metrics import RedisMetricsStore
from techdeck_tasks.metrics.buckets import minute_of, spans_between, summed
from techdeck_tasks.metrics.series import Kind, Series
from techdeck_tasks.metrics.store import Batch
from techdeck_tasks.resilience.breaker import BreakerConfig, BreakerRegistry, CircuitBreaker, State
from techdeck_tasks.resilience.statistics import RetryRegistry
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis

Until = Callable[..., None]
NewServer = Callable[..., Any]

PASSWORD = "integration-only"


def drive_round(client: redis.Redis, until: Until) -> None:
    """Use every script once, on names whose slots differ."""
    for name in ("alpha", "beta", "gamma"):
        breaker = CircuitBreaker(name, client, BreakerConfig(open_s=0.02, success_threshold=1))
        for _ in range(5):
            breaker.acquire().failure()
        until(breaker.can_execute)
        breaker.record_success()
        breaker.force(State.SHADOW, owner="ann", reason="x")
        breaker.open_for(1)
        breaker.manual_reset()
        status = breaker.get_status()
        assert (status["underlying_state"], status["source"]) == ("closed", "redis")
    registry = BreakerRegistry(client, Settings())
    assert {"alpha", "beta", "gamma"} <= set(registry.get_status())
    assert len(registry.transitions({})) >= 3 * 5
    statistics = RetryRegistry(client)
    for name in ("alpha", "beta"):
        statistics.record(name, 2, success=True)
    assert statistics.get_statistics()["total_retries"] == 4
    count_and_read(RedisMetricsStore(client, timedelta(hours=48)))


def count_and_read(store: RedisMetricsStore) -> None:
    now = datetime.now(UTC)
    series = Series(Kind.SUCCESS, "lab")
    store.add(Batch("one", 1, minute_of(now) - 1, {series: 3}))
    read = store.read(spans_between(now - timedelta(hours=24), now, now))
    assert summed(read) == store.totals() == {series: 3}


def test_breakers_and_metrics_run_on_a_cluster(new_server: NewServer, until: Until) -> None:
    node = new_server("--cluster-enabled", "yes")
    admin = node.client()
    admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
    until(lambda: b"cluster_state:ok" in _raw(admin.execute_command("CLUSTER", "INFO")))
    url = f"redis+cluster://:{PASSWORD}@127.0.0.1:{node.port}"
    drive_round(connect_redis(Settings(redis_url=url, redis_timeout_seconds=2)), until)


def test_breakers_and_metrics_run_behind_sentinel(
    new_server: NewServer, until: Until, tmp_path: Path
) -> None:
    master = new_server()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor lab 127.0.0.1 {master.port} 1\nsentinel auth-pass lab {PASSWORD}\n"
    )
    sentinel = new_server(str(configuration), "--sentinel")
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/lab/0?sentinel_password={PASSWORD}"
    drive_round(connect_redis(Settings(redis_url=url, redis_timeout_seconds=2)), until)


def test_a_cluster_that_does_not_answer_is_named_without_its_url(new_server: NewServer) -> None:
    node = new_server()
    node.kill()
    url = f"redis+cluster://:{PASSWORD}@127.0.0.1:{node.port}"
    with pytest.raises(ServiceUnavailableError) as caught:
        connect_redis(Settings(redis_url=url))
    assert PASSWORD not in str(caught.value.to_dict())


def _raw(info: Any) -> bytes:
    if isinstance(info, dict):
        return "".join(f"{key}:{value}\n" for key, value in info.items()).encode()
    return info if isinstance(info, bytes) else str(info).encode()
