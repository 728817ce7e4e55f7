"""The counters as Prometheus reads them, with gauges beside.

Nothing is counted here: every process that serves them reads the same numbers from Redis, so one target is
enough, a prefork worker's children need no shared files, and a restart resets nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.metrics.series import DURATION_BOUNDS_S, Kind, Series
from techdeck_tasks.storage.redis_client import REDIS_FAILURES

logger = logging.getLogger(__name__)

Labels = tuple[str, ...]

_UNREADABLE: tuple[type[Exception], ...] = (*REDIS_FAILURES, TechDeckError)
_ERROR_LABELS = ("error_code", "severity", "service", "hipaa")


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is looked up when somebody asks.

    Attributes:
        name: as Prometheus shows it.
        help: what it means, in a sentence.
        read: returns the value of each combination of labels; may raise what its server raises.
        labels: the labels' names.
    """

    name: str
    help: str
    read: Callable[[], Mapping[Labels, float]]
    labels: Labels = ()


class PrometheusCollector(Collector):
    """Reads the totals and the gauges at each scrape: one round trip, and those of the gauges.

    While Redis is away `techdeck_redis_up` is 0 and the counters are absent, which Prometheus shows as a gap.
    A gauge that cannot be read is left out, and counted in `techdeck_gauges_unreadable`.

    Args:
        totals: returns what was counted since the beginning.
        gauges: returns what is shown beside; called at each scrape, so that some may share a measurement.
    """

    def __init__(
        self, totals: Callable[[], Mapping[Series, int]], gauges: Callable[[], Sequence[Gauge]]
    ) -> None:
        self._totals = totals
        self.gauges = gauges

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Return every metric."""
        try:
            totals = self._totals()
        except TechDeckError as failure:
            logger.warning("scraped without counters: %s", failure)
            yield GaugeMetricFamily("techdeck_redis_up", "Whether the counters' Redis answers.", value=0)
        else:
            yield GaugeMetricFamily("techdeck_redis_up", "Whether the counters' Redis answers.", value=1)
            yield from _counters(totals)
            yield _durations(totals)
        yield from self._read_gauges()

    def _read_gauges(self) -> Iterator[Metric]:
        unreadable = 0
        for gauge in self.gauges():
            try:
                values = gauge.read()
            except _UNREADABLE as failure:
                logger.debug("%s cannot be read: %s", gauge.name, type(failure).__name__)
                unreadable += 1
                continue
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
        yield GaugeMetricFamily(
            "techdeck_gauges_unreadable", "Gauges that could not be read in this scrape.", value=unreadable
        )


def _counters(totals: Mapping[Series, int]) -> Iterator[Metric]:
    yield _counter(
        "techdeck_errors",
        "Handled errors: each failed attempt and each error answered to a caller.",
        _ERROR_LABELS,
        _grouped(
            totals, {Kind.ERROR}, lambda one: (one.code, one.severity, one.service, str(one.hipaa).lower())
        ),
    )
    yield _counter(
        "techdeck_executions",
        "Executions: successes and handled errors.",
        ("service",),
        _grouped(totals, {Kind.SUCCESS, Kind.ERROR}, lambda one: (one.service,)),
    )
    yield _counter(
        "techdeck_retries",
        "Attempts that were scheduled after a failed one.",
        ("error_code", "service"),
        _grouped(totals, {Kind.RETRY}, lambda one: (one.code, one.service)),
    )
    yield _counter(
        "techdeck_compliance_notices",
        "Errors that ask for HIPAA notification.",
        ("error_code",),
        _grouped(totals, {Kind.NOTICE}, lambda one: (one.code,)),
    )
    yield _counter(
        "techdeck_breaker_transitions",
        "Changes of circuit breakers' states, by the new state.",
        ("breaker", "state"),
        _grouped(totals, {Kind.TRANSITION}, lambda one: (one.service, one.code)),
    )
    yield _counter(
        "techdeck_metrics_dropped",
        "Increments given up because Redis was away for too long.",
        (),
        {(): totals.get(Series(Kind.DROPPED), 0)},
    )


def _counter(name: str, said: str, labels: Labels, values: Mapping[Labels, int]) -> Metric:
    family = CounterMetricFamily(name, said, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _grouped(
    totals: Mapping[Series, int], kinds: set[Kind], labels_of: Callable[[Series], Labels]
) -> Counter[Labels]:
    grouped: Counter[Labels] = Counter()
    for series, count in totals.items():
        if series.kind in kinds:
            grouped[labels_of(series)] += count
    return grouped


def _durations(totals: Mapping[Series, int]) -> Metric:
    family = HistogramMetricFamily(
        "techdeck_task_duration_seconds", "Run times of tasks that succeeded.", labels=("service",)
    )
    sums = _grouped(totals, {Kind.DURATION_SUM}, lambda one: (one.service,))
    counts = _grouped(totals, {Kind.DURATION}, lambda one: (one.service, one.code))
    bounds = [*(f"{bound:g}" for bound in DURATION_BOUNDS_S), "+Inf"]
    for (service,), microseconds in sorted(sums.items()):
        below, buckets = 0, []
        for index, bound in enumerate(bounds):
            below += counts[service, str(index)]
            buckets.append((bound, float(below)))
        family.add_metric((service,), buckets, microseconds / 1e6)
    return family
