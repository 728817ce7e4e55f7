"""The same bodies run on Redis and on the store of `techdeck_tasks.testing`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from techdeck_tasks.resilience.breaker import BreakerConfig, BreakerStore, CircuitBreaker
from techdeck_tasks.resilience.breaker.redis_store import RedisBreakerStore
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis
from techdeck_tasks.testing.breaker import InMemoryBreakerStore

if TYPE_CHECKING:
    from redis import Redis

Make = Callable[..., CircuitBreaker]


@pytest.fixture(scope="session")
def breaker_redis(redis_url: str) -> Iterator[Redis]:
    client = connect_redis(Settings(redis_url=redis_url, redis_timeout_seconds=2))
    yield client
    client.close()


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest) -> BreakerStore:
    if request.param == "memory":
        return InMemoryBreakerStore()
    return RedisBreakerStore(request.getfixturevalue("breaker_redis"))


@pytest.fixture
def name() -> str:
    """A name no other test uses: nobody has to empty Redis."""
    return f"svc-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make(store: BreakerStore, name: str) -> Make:
    """Make a breaker of this test's name, as another process would."""

    def make(config: BreakerConfig | None = None, /, **options: object) -> CircuitBreaker:
        return CircuitBreaker(name, store, config or BreakerConfig(open_s=0.03), **options)  # type: ignore[arg-type]  # passed through

    return make


def wait_until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    """Wait for `condition`, which asks whoever really knows."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.001)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until
