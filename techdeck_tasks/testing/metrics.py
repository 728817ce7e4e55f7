"""Metrics for a test suite without Redis: the real collector on a store in the process.

The store passes the same contract suite as the one on Redis.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.metrics import ErrorMetricsCollector, MetricsRecorder
from techdeck_tasks.metrics.buckets import MINUTES_KEPT, Bucket, Grain, Span, minute_of
from techdeck_tasks.metrics.series import Series
from techdeck_tasks.metrics.store import MAX_SERIES, Batch
from techdeck_tasks.settings import Settings


class InMemoryMetricsStore:
    """A store whose time is the test's, and which the test can make unreachable.

    Args:
        retention: how long an hour is kept.
        clock: gives the store's time; default: the machine's.
        max_series: how many series a bucket may have.

    Attributes:
        away: set it to True, and the store behaves as a Redis that does not answer.
    """

    def __init__(
        self, retention: timedelta, *, clock: Clock | None = None, max_series: int = MAX_SERIES
    ) -> None:
        self._retention = retention
        self._clock = clock or SystemClock()
        self._max_series = max_series
        self._lock = threading.Lock()
        self._buckets: dict[Span, Counter[Series]] = {}
        self._totals: Counter[Series] = Counter()
        self._told: dict[str, int] = {}
        self.away = False

    def add(self, batch: Batch) -> None:
        """Count `batch`, once."""
        self._answer()
        with self._lock:
            if self._told.get(batch.producer, 0) >= batch.sequence:
                return
            self._told[batch.producer] = batch.sequence
            minute = min(batch.minute, minute_of(self._clock.now()))
            lifetime: Counter[Series] = Counter()
            for series, count in batch.counts.items():
                lifetime[series.lifetime()] += count
            for span in (Span(Grain.MINUTE, minute), Span(Grain.HOUR, minute // 60)):
                self._count(self._buckets.setdefault(span, Counter()), batch.counts)
            self._count(self._totals, lifetime)

    def read(self, spans: Sequence[Span]) -> list[Bucket]:
        """Return the buckets of `spans`, those too old empty."""
        self._answer()
        with self._lock:
            self._expire()
            return [Bucket(span, dict(self._buckets.get(span, {}))) for span in spans]

    def totals(self) -> Mapping[Series, int]:
        """Return what was counted since the store was made."""
        self._answer()
        with self._lock:
            return dict(self._totals)

    def _count(self, bucket: Counter[Series], counts: Mapping[Series, int]) -> None:
        for series, count in counts.items():
            full = len(bucket) >= self._max_series and series not in bucket
            bucket[series.overflow() if full else series] += count

    def _expire(self) -> None:
        now = self._clock.now()
        kept = {Grain.MINUTE: min(MINUTES_KEPT, self._retention), Grain.HOUR: self._retention}
        for span in list(self._buckets):
            if span.start + timedelta(minutes=span.grain.value) + kept[span.grain] <= now:
                del self._buckets[span]

    def _answer(self) -> None:
        if self.away:
            raise ServiceUnavailableError("made unreachable by the test", service_name="redis")


def in_memory_metrics(settings: Settings, *, clock: Clock | None = None) -> ErrorMetricsCollector:
    """Return a collector on a store of its own in this process; add it to the listeners."""
    clock = clock or SystemClock()
    store = InMemoryMetricsStore(timedelta(hours=settings.metrics_retention_hours), clock=clock)
    return ErrorMetricsCollector(store, MetricsRecorder(lambda: store), settings, clock)
