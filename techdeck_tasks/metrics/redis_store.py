"""The store on Redis. Every key is in one cluster slot: a batch touches four, a query many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from redis import Redis

from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.metrics.buckets import MINUTES_KEPT, Bucket, Grain, Span
from techdeck_tasks.metrics.series import Series
from techdeck_tasks.metrics.store import MAX_SERIES, Batch
from techdeck_tasks.storage.redis_client import REDIS_FAILURES, Script

_PREFIX = "td:metrics:{all}"
_TOTAL = f"{_PREFIX}:total"
_ADD = Script.load("techdeck_tasks.metrics", "lua/add.lua")


class RedisMetricsStore:
    """Hashes of counters: one for each minute, one for each hour, one for all time.

    Args:
        client: bounded by its own timeout; replies are bytes.
        retention: how long an hour is kept. Minutes are kept for 25 hours at most.
        max_series: how many series a bucket may have.
    """

    def __init__(self, client: Redis, retention: timedelta, *, max_series: int = MAX_SERIES) -> None:
        self._redis = client
        self._retention = retention
        self._max_series = max_series

    def add(self, batch: Batch) -> None:
        """Count `batch`: one round trip; two where the producer's clock is ahead of Redis's."""
        with _answering():
            present = self._add(batch)
            if present >= 0:
                self._add(replace(batch, minute=present))

    def read(self, spans: Sequence[Span]) -> list[Bucket]:
        """Return the buckets of `spans`: one round trip."""
        with _answering(), self._redis.pipeline(transaction=False) as pipe:
            for span in spans:
                pipe.hgetall(_key(span))
            hashes = pipe.execute()
        return [Bucket(span, _counts(one)) for span, one in zip(spans, hashes, strict=True)]

    def totals(self) -> Mapping[Series, int]:
        """Return what was counted since Redis was last emptied: one round trip."""
        with _answering():
            found: Any = self._redis.hgetall(_TOTAL)
        return _counts(found)

    def _add(self, batch: Batch) -> int:
        minute, hour = Span(Grain.MINUTE, batch.minute), Span(Grain.HOUR, batch.minute // 60)
        lifetime: Counter[Series] = Counter()
        for series, count in batch.counts.items():
            lifetime[series.lifetime()] += count
        keys = (_key(minute), _key(hour), _TOTAL, f"{_PREFIX}:producer:{batch.producer}")
        args = (
            batch.minute,
            batch.sequence,
            _expiry_s(minute, min(MINUTES_KEPT, self._retention)),
            _expiry_s(hour, self._retention),
            self._max_series,
            len(batch.counts),
            *_triples(batch.counts),
            *_triples(lifetime),
        )
        return int(_ADD(self._redis, keys, args))


def _key(span: Span) -> str:
    return f"{_PREFIX}:{span.grain.name.lower()}:{span.index}"


def _expiry_s(span: Span, kept: timedelta) -> int:
    end = span.start + timedelta(minutes=span.grain.value)
    return int((end + kept).timestamp())


def _triples(counts: Mapping[Series, int]) -> Iterator[str | int]:
    for series, count in counts.items():
        field, overflow = _fields(series)
        yield from (field, overflow, count)


@lru_cache(maxsize=4096)
def _fields(series: Series) -> tuple[str, str]:
    return series.encode(), series.overflow().encode()


@lru_cache(maxsize=4096)
def _series(field: bytes) -> Series:
    return Series.decode(field.decode())


def _counts(found: Mapping[bytes, bytes]) -> dict[Series, int]:
    return {_series(field): int(count) for field, count in found.items()}


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except REDIS_FAILURES as failure:
        raise ServiceUnavailableError(
            f"redis does not answer ({type(failure).__name__}): metrics are neither counted nor read",
            service_name="redis",
        ) from None
