"""Time in minutes and hours, and which buckets answer for a period. Pure.

Every count goes into the bucket of its minute and into that of its hour. A period is answered from the hours
it holds whole and from the minutes at its two edges: at most 118 minutes, however long it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from techdeck_tasks.metrics.series import Series

MINUTES_KEPT = timedelta(hours=25)
"""How long minutes are kept. An edge older than that is widened to its whole hour."""

_MINUTE_S = 60
_HOUR = 60
"""Minutes in an hour."""


class Grain(Enum):
    """How much time a bucket spans; the value is in minutes."""

    MINUTE = 1
    HOUR = _HOUR


@dataclass(frozen=True, slots=True)
class Span:
    """One bucket's time: the `index`th minute or hour since 1970, UTC."""

    grain: Grain
    index: int

    @property
    def start(self) -> datetime:
        """When it begins."""
        return datetime.fromtimestamp(self.index * self.grain.value * _MINUTE_S, UTC)

    @property
    def hour(self) -> int:
        """The hour since 1970 that it is, or belongs to."""
        return self.index * self.grain.value // _HOUR


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was counted in a span."""

    span: Span
    counts: Mapping[Series, int]


def minute_of(moment: datetime) -> int:
    """Return the minute since 1970 in which `moment` lies."""
    return int(moment.timestamp()) // _MINUTE_S


def spans_between(
    start: datetime, end: datetime, now: datetime, minutes_kept: timedelta = MINUTES_KEPT
) -> list[Span]:
    """Return the buckets that answer for `start` to `end`, both widened to whole minutes.

    Args:
        start: inclusive, aware.
        end: exclusive, aware; what is later than `now` holds nothing.
        now: the present.
        minutes_kept: minutes older than this are gone.
    """
    present = minute_of(now) + 1
    oldest = present - int(minutes_kept.total_seconds()) // _MINUTE_S
    minute = minute_of(start)
    last = min(-int(-end.timestamp() // _MINUTE_S), present)
    spans = []
    while minute < last:
        hour = minute // _HOUR
        following = (hour + 1) * _HOUR
        # The running hour is whole when everything up to now is asked for.
        whole = minute == hour * _HOUR and last >= min(following, present)
        if whole or minute < oldest:
            spans.append(Span(Grain.HOUR, hour))
            minute = following
        else:
            spans.append(Span(Grain.MINUTE, minute))
            minute += 1
    return spans


def hours_until(now: datetime, hours: int) -> list[Span]:
    """Return the last `hours` clock hours, the running one last."""
    last = minute_of(now) // _HOUR
    return [Span(Grain.HOUR, hour) for hour in range(last - hours + 1, last + 1)]


def summed(buckets: Iterable[Bucket]) -> Counter[Series]:
    """Return what was counted in all of them together."""
    total: Counter[Series] = Counter()
    for bucket in buckets:
        total.update(bucket.counts)
    return total


def by_hour(buckets: Iterable[Bucket]) -> list[Bucket]:
    """Return the buckets, those of one hour put together, in order."""
    hours: dict[int, Counter[Series]] = {}
    for bucket in buckets:
        hours.setdefault(bucket.span.hour, Counter()).update(bucket.counts)
    return [Bucket(Span(Grain.HOUR, hour), counts) for hour, counts in sorted(hours.items())]
