"""Whether errors become more or fewer. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from techdeck_tasks.metrics.buckets import Bucket, by_hour
from techdeck_tasks.metrics.filters import Filters

SIGNIFICANT_Z = 1.96
"""Two error rates differ beyond chance (at 95 %) where the two-proportion z statistic exceeds this."""


class Direction(StrEnum):
    """How the later half of a period compares with the earlier one."""

    RISING = "rising"
    FALLING = "falling"
    STEADY = "steady"


@dataclass(frozen=True, slots=True)
class Tally:
    """Errors among executions."""

    errors: int
    executions: int

    @property
    def rate(self) -> float:
        """Return the errors in percent."""
        return 100 * self.errors / self.executions if self.executions else 0.0


def tally(buckets: Sequence[Bucket], filters: Filters) -> Tally:
    """Return the errors in `buckets` that match `filters`, and the executions they are a part of."""
    errors = executions = 0
    for bucket in buckets:
        for series, count in bucket.counts.items():
            errors += count * filters.match_error(series)
            executions += count * filters.match_execution(series)
    return Tally(errors, executions)


def hourly(buckets: Sequence[Bucket], filters: Filters) -> list[dict[str, Any]]:
    """Return one entry for each hour of `buckets`, in order, with the specification's keys."""
    entries = []
    for bucket in by_hour(buckets):
        found = tally([bucket], filters)
        entries.append(
            {
                "hour": bucket.span.start.isoformat(),
                "error_count": found.errors,
                "total_requests": found.executions,
                "error_rate_percentage": found.rate,
            }
        )
    return entries


def trend_analysis(buckets: Sequence[Bucket], filters: Filters, middle: datetime) -> dict[str, Any]:
    """Compare the buckets that begin at `middle` or later with those before.

    ``direction`` is ``rising`` or ``falling`` where the error rates differ beyond chance, else ``steady``;
    ``change_percentage_points`` is the later rate less the earlier one; ``peak_hour`` had the most errors.
    """
    earlier = tally([bucket for bucket in buckets if bucket.span.start < middle], filters)
    later = tally([bucket for bucket in buckets if bucket.span.start >= middle], filters)
    hours = hourly(buckets, filters)
    peak = max(hours, key=lambda entry: entry["error_count"], default=None)
    return {
        "direction": direction(earlier, later).value,
        "earlier_error_rate": earlier.rate,
        "later_error_rate": later.rate,
        "change_percentage_points": later.rate - earlier.rate,
        "peak_hour": peak["hour"] if peak and peak["error_count"] else None,
        "hourly": hours,
    }


def direction(earlier: Tally, later: Tally) -> Direction:
    """Return how `later` compares with `earlier`, by the pooled two-proportion z test."""
    if not earlier.executions or not later.executions:
        return Direction.STEADY
    pooled = (earlier.errors + later.errors) / (earlier.executions + later.executions)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / earlier.executions + 1 / later.executions))
    if not spread:
        return Direction.STEADY
    z = (later.rate - earlier.rate) / 100 / spread
    if abs(z) < SIGNIFICANT_Z:
        return Direction.STEADY
    return Direction.RISING if z > 0 else Direction.FALLING
