"""How often operations were retried, counted by every process together."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.events import ErrorHandled, Event, ExecutionSucceeded, Outcome
from techdeck_tasks.resilience.forking import when_forked
from techdeck_tasks.storage.redis_client import REDIS_FAILURES, RedisClient, Script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

INDEX = "td:retry:index"
"""Zset of operation names by the time of their last batch (s)."""

MAX_OPERATIONS = 1000
"""Operations counted; beyond it Redis drops those that are longest idle, and a process counts no new one."""

MOST_RETRIES = 20
"""Operations with more retries than this count as this many in the distribution."""

_ADD = Script.load("techdeck_tasks.resilience", "lua/retry_statistics.lua")
_INDEX = Script.load("techdeck_tasks.resilience.breaker", "lua/index.lua")


class RetryRegistry:
    """Counts finished operations and their retries; shared in Redis, batched in the process.

    A process tells its counts when `flush_s` have passed since it last did, and when asked. While Redis is
    away they wait in the process, and the statistics are this process's own. A killed process loses what it
    had not told; a forked child does not tell its parent's.

    Args:
        client: a bounded client (`connect_redis`); None: this process only.
        clock: where the time comes from.
        flush_s: seconds between two batches.
    """

    def __init__(
        self, client: RedisClient | None, *, clock: Clock | None = None, flush_s: float = 1.0
    ) -> None:
        self._client = client
        self._clock = clock or SystemClock()
        self._flush_s = flush_s
        self.start_empty()
        when_forked(self)

    def start_empty(self) -> None:
        """Forget what is untold: at the start and in a forked child."""
        self._lock = threading.Lock()
        self._untold: dict[str, Counter[str]] = {}
        self._told_at = self._clock.monotonic()

    def record(self, operation_name: str, retries: int, *, success: bool) -> bool:
        """Count one finished operation that took `retries` retries; whether `flush` is due. No I/O."""
        with self._lock:
            counts = self._untold.get(operation_name)
            if counts is None:
                if len(self._untold) >= MAX_OPERATIONS:
                    return True
                counts = self._untold[operation_name] = Counter()
            counts["total"] += 1
            counts["ok"] += success
            if retries:
                counts["retries"] += retries
                counts[f"d{min(retries, MOST_RETRIES)}"] += 1
            return self._clock.monotonic() - self._told_at >= self._flush_s

    def flush(self) -> bool:
        """Tell what is untold: two round trips an operation. False where Redis is away; nothing is lost."""
        with self._lock:
            self._told_at = self._clock.monotonic()
            if self._client is None:
                return False
            batch, self._untold = self._untold, {}
        while batch:
            name, counts = batch.popitem()
            args = [part for field, value in counts.items() if value for part in (field, value)]
            try:
                _ADD(self._client, (_key(name),), args)
                _INDEX(self._client, (INDEX,), (name, int(self._clock.now().timestamp()), MAX_OPERATIONS))
            except REDIS_FAILURES as failure:
                logger.warning("retry statistics wait: redis does not answer (%s)", type(failure).__name__)
                batch[name] = counts
                self._put_back(batch)
                return False
        return True

    def get_statistics(self, operation_name: str | None = None) -> dict[str, Any]:
        """Return the statistics of one operation, or of all together with each under ``operations``.

        ``average_retries`` is retries per operation; ``retry_distribution`` says how many operations took
        that many retries (at least one).
        """
        if operation_name is not None:
            return _statistics(self._counts(operation_name))
        counts = {name: self._counts(name) for name in self._names()}
        total: Counter[str] = Counter()
        for each in counts.values():
            total.update(each)
        return _statistics(total) | {
            "operations": {name: _statistics(each) for name, each in sorted(counts.items())}
        }

    def _put_back(self, batch: Mapping[str, Counter[str]]) -> None:
        with self._lock:
            for name, counts in batch.items():
                self._untold.setdefault(name, Counter()).update(counts)

    def _names(self) -> set[str]:
        told = self.flush()
        with self._lock:
            names = set(self._untold)
        if told and self._client is not None:
            try:
                stored: list[Any] = self._client.zrange(INDEX, 0, -1)
                names.update(_text(name) for name in stored)
            except REDIS_FAILURES as failure:
                logger.warning("only this process's retries are listed (%s)", type(failure).__name__)
        return names

    def _counts(self, name: str) -> Counter[str]:
        told = self.flush()
        with self._lock:
            counts = Counter(self._untold.get(name, {}))
        if told and self._client is not None:
            try:
                stored: Mapping[Any, Any] = self._client.hgetall(_key(name))
                counts.update({_text(field): int(value) for field, value in stored.items()})
            except REDIS_FAILURES as failure:
                logger.warning("only this process's retries are known (%s)", type(failure).__name__)
        return counts


class RetryListener:
    """Feeds the registry with what becomes of tasks: the successes, and the failures for good.

    Args:
        registry: gives the registry when the first task ends: making its client may connect.
    """

    def __init__(self, registry: Callable[[], RetryRegistry]) -> None:
        self._registry = registry

    def on_event(self, event: Event) -> None:
        """Count a task that ended; tell Redis where it is time to."""
        registry = self._registry()
        if isinstance(event, ExecutionSucceeded):
            due = registry.record(event.operation, event.attempt, success=True)
        elif isinstance(event, ErrorHandled) and event.outcome is Outcome.FAILED and event.task_name:
            due = registry.record(event.task_name, event.attempt or 0, success=False)
        else:
            return
        if due:
            registry.flush()


def _key(name: str) -> str:
    return f"td:retry:{{{name}}}"


def _statistics(counts: Counter[str]) -> dict[str, Any]:
    total, ok, retries = counts["total"], counts["ok"], counts["retries"]
    return {
        "total_operations": total,
        "successful_operations": ok,
        "failed_operations": total - ok,
        "total_retries": retries,
        "average_retries": retries / total if total else 0.0,
        "retry_distribution": {
            str(number): counts[f"d{number}"] for number in range(1, MOST_RETRIES + 1) if counts[f"d{number}"]
        },
    }


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
