"""The same bodies run on Redis and on the store of `techdeck_tasks.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.events import ErrorHandled, ExecutionSucceeded, Outcome
from techdeck_tasks.metrics import ErrorMetricsCollector, MetricsRecorder, MetricsStore, RedisMetricsStore
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis
from techdeck_tasks.testing.metrics import InMemoryMetricsStore

if TYPE_CHECKING:
    from redis import Redis

RETENTION = timedelta(hours=48)
MakeStore = Callable[..., MetricsStore]


@pytest.fixture(scope="session")
def metrics_redis() -> Iterator[Redis]:
    """A Redis of these tests' own: the counters are those of a whole deployment."""
    with EmbeddedRedis() as server:
        client = connect_redis(Settings(redis_url=server.url, redis_timeout_seconds=2))
        yield client
        client.close()


@pytest.fixture(params=["redis", "memory"])
def make_store(request: pytest.FixtureRequest) -> MakeStore:
    if request.param == "memory":
        return lambda **options: InMemoryMetricsStore(RETENTION, **options)
    client = request.getfixturevalue("metrics_redis")
    client.flushall()
    return lambda **options: RedisMetricsStore(client, RETENTION, **options)


@pytest.fixture
def store(make_store: MakeStore) -> MetricsStore:
    return make_store()


@pytest.fixture
def metrics(store: MetricsStore) -> ErrorMetricsCollector:
    settings = Settings(
        metrics_retention_hours=48,
        error_rate_alert_threshold=30,
        service_error_rate_thresholds={"lab": 60},
    )
    return ErrorMetricsCollector(store, MetricsRecorder(lambda: store), settings, SystemClock())


def an_error(**changes: Any) -> ErrorHandled:
    facts: dict[str, Any] = {
        "error_id": "5b1c",
        "error_code": "TIMEOUT_ERROR",
        "severity": "medium",
        "recoverable": True,
        "hipaa_related": False,
        "service": "lab",
        "operation": "lab.import",
        "outcome": Outcome.FAILED,
        "occurred_at": datetime.now(UTC),
    }
    return ErrorHandled(**(facts | changes))


def a_success(**changes: Any) -> ExecutionSucceeded:
    facts: dict[str, Any] = {
        "service": "lab",
        "operation": "lab.import",
        "duration_s": 0.02,
        "attempt": 0,
        "occurred_at": datetime.now(UTC),
    }
    return ExecutionSucceeded(**(facts | changes))


@pytest.fixture
def new_error() -> Callable[..., ErrorHandled]:
    return an_error


@pytest.fixture
def new_success() -> Callable[..., ExecutionSucceeded]:
    return a_success
