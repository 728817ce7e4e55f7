"""Which buckets answer for a period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.metrics.buckets import Grain, hours_until, minute_of, spans_between

NOW = datetime(2026, 3, 4, 10, 25, 30, tzinfo=UTC)


def test_a_day_is_its_whole_hours_and_the_minutes_of_its_first() -> None:
    spans = spans_between(NOW - timedelta(hours=24), NOW, NOW)
    grains = [span.grain for span in spans]
    assert grains.count(Grain.HOUR) == 24, "23 whole ones and the running one"
    assert grains.count(Grain.MINUTE) == 35


def test_edges_that_are_older_than_the_minutes_are_widened_to_their_hour() -> None:
    start = NOW - timedelta(hours=40)
    spans = spans_between(start, start + timedelta(minutes=10), NOW)
    assert [span.grain for span in spans] == [Grain.HOUR]
    assert spans[0].start == start.replace(minute=0, second=0)


def test_the_future_holds_nothing() -> None:
    assert spans_between(NOW + timedelta(hours=1), NOW + timedelta(hours=2), NOW) == []


def test_the_last_hours_end_with_the_running_one() -> None:
    spans = hours_until(NOW, 3)
    assert [span.start.hour for span in spans] == [8, 9, 10]


@given(
    start=st.integers(0, 24 * 60 - 1),
    length=st.integers(1, 24 * 60),
)
def test_every_minute_of_a_recent_period_is_read_exactly_once(start: int, length: int) -> None:
    begin = NOW.replace(second=0) - timedelta(minutes=start)
    end = min(begin + timedelta(minutes=length), NOW)
    minutes = [
        span.index * span.grain.value + offset
        for span in spans_between(begin, end, NOW)
        for offset in range(span.grain.value)
    ]
    past = [minute for minute in minutes if minute <= minute_of(NOW)]
    last = minute_of(end - timedelta(microseconds=1))
    assert past == list(range(minute_of(begin), last + 1))


@pytest.mark.parametrize("hours", [1, 24, 720])
def test_a_period_of_any_length_reads_few_buckets(hours: int) -> None:
    spans = spans_between(NOW - timedelta(hours=hours), NOW - timedelta(minutes=1), NOW)
    assert len(spans) <= hours + 118
