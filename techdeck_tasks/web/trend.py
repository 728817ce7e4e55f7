"""Executions and errors hour by hour, from the counters that all processes share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from techdeck_tasks.metrics.buckets import Bucket
from techdeck_tasks.metrics.series import Kind


@dataclass(frozen=True, slots=True)
class Hour:
    """One clock hour, aware UTC: its errors by their code, and what ran in it, errors among them."""

    start: datetime
    counts: Counter[str] = field(default_factory=Counter)
    executions: int = 0


def hours_of(buckets: Sequence[Bucket]) -> list[Hour]:
    """Return the hours that `buckets` counted, in their order."""
    return [_hour(bucket) for bucket in buckets]


def error_rate(hours: Sequence[Hour]) -> float:
    """Return the errors in percent of the executions; 0 where nothing ran."""
    executions = sum(hour.executions for hour in hours)
    return 100 * sum(hour.counts.total() for hour in hours) / executions if executions else 0.0


def _hour(bucket: Bucket) -> Hour:
    errors: Counter[str] = Counter()
    executions = 0
    for series, count in bucket.counts.items():
        if series.kind is Kind.ERROR:
            errors[series.code] += count
        if series.kind in (Kind.ERROR, Kind.SUCCESS):
            executions += count
    return Hour(bucket.span.start, errors, executions)
