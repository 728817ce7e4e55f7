"""What recovery acts on: connections, caches, endpoints, batch sizes, and people."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Engine, text

from techdeck_tasks.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from techdeck_tasks.storage.redis_client import RedisClient

CACHE_PREFIX = "td:cache:"


class Connection(Protocol):
    """Something that holds connections to another side."""

    def close(self) -> None:
        """Drop every connection; those in use are dropped when they are given back."""

    def check(self) -> None:
        """Make a connection and have it answer.

        Raises:
            Exception: the other side does not answer.
        """


@dataclass(frozen=True, slots=True)
class DatabaseConnection:
    """The pool of a SQLAlchemy engine."""

    engine: Engine

    def close(self) -> None:
        """Dispose of the pool."""
        self.engine.dispose()

    def check(self) -> None:
        """Connect and select."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))


@dataclass(frozen=True, slots=True)
class RedisConnection:
    """The pool of a Redis client."""

    client: RedisClient

    def close(self) -> None:
        """Disconnect the pool."""
        self.client.close()

    def check(self) -> None:
        """Connect and ping."""
        self.client.ping()


class Cache(Protocol):
    """Where cached entries can be deleted."""

    def delete(self, keys: Sequence[str]) -> int:
        """Delete `keys`; how many there were."""


@dataclass(frozen=True, slots=True)
class RedisCache:
    """Cached entries in Redis. The prefix keeps a recovery from deleting anything but a cache."""

    client: RedisClient
    prefix: str = CACHE_PREFIX

    def delete(self, keys: Sequence[str]) -> int:
        """Delete `keys`, without the prefix; how many there were. One round trip each."""
        # One by one: the keys of a cluster live in different slots.
        return sum(int(self.client.unlink(f"{self.prefix}{key}")) for key in keys)


class EndpointPool:
    """Endpoints of one service, and which of them failed lately. Safe between threads.

    Args:
        endpoints: in order of preference, at least one.
        clock: where the time comes from.
        cool_down_s: seconds for which an endpoint that failed is left alone.

    Raises:
        ValueError: there is no endpoint, or one twice.
    """

    def __init__(
        self, endpoints: Sequence[str], *, clock: Clock | None = None, cool_down_s: float = 60.0
    ) -> None:
        if not endpoints or len(set(endpoints)) < len(endpoints):
            raise ValueError("an endpoint pool needs at least one endpoint, each once")
        self._endpoints = tuple(endpoints)
        self._clock = clock or SystemClock()
        self._cool_down_s = cool_down_s
        self._well_again: dict[str, float] = {}
        self._current = self._endpoints[0]
        self._lock = threading.Lock()

    @property
    def current(self) -> str:
        """The endpoint to be used."""
        return self._current

    def switch(self, failed: str | None = None) -> str | None:
        """Note that `failed` (None: the current one) does not serve, and go on to the next that may.

        Returns:
            The endpoint to be used from now on; None where every other one failed lately too.
        """
        with self._lock:
            now = self._clock.monotonic()
            self._well_again[failed or self._current] = now + self._cool_down_s
            if failed is not None and failed != self._current:
                # Another caller has switched already.
                return self._current
            start = self._endpoints.index(self._current)
            for step in range(1, len(self._endpoints)):
                candidate = self._endpoints[(start + step) % len(self._endpoints)]
                if self._well_again.get(candidate, now) <= now:
                    self._current = candidate
                    return candidate
            return None

    def succeeded(self, endpoint: str) -> None:
        """Note that `endpoint` serves."""
        with self._lock:
            self._well_again.pop(endpoint, None)


class BatchSize:
    """How many rows are taken at once. A task puts it into its context, and reads it again after recovery.

    Args:
        value: rows, at least 1.
    """

    def __init__(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"batch size is {value}; use at least 1")
        self.value = value

    def halve(self) -> int:
        """Take half as many, at least 1; returns how many."""
        self.value = max(1, self.value // 2)
        return self.value


class InterventionStore(Protocol):
    """Where a person finds what waits for a decision, and resolves it later."""

    def open(self, *, error_id: str, error_code: str, requirements: Mapping[str, Any]) -> str:
        """Store the request; returns its id. The same `error_id` again returns the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryResources:
    """What the strategies may act on; what is missing cannot be recovered.

    Attributes:
        connections: by ``connection_id`` or service name.
        cache: whose ``cache_keys`` are deleted.
        endpoints: by service name.
        alternatives: by name: callables that take the context and do the work in another way.
        interventions: where a person is asked.
    """

    connections: Mapping[str, Connection] = field(default_factory=dict)
    cache: Cache | None = None
    endpoints: Mapping[str, EndpointPool] = field(default_factory=dict)
    alternatives: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    interventions: InterventionStore | None = None
