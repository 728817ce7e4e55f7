from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.web.chart import BOTTOM, HEIGHT, LEFT, MOST_SERIES, OTHER, TOP, WIDTH, draw
from techdeck_tasks.web.trend import Hour, error_rate

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


def hours(*counts: dict[str, int]) -> list[Hour]:
    return [
        Hour(BEGIN + timedelta(hours=place), Counter(each), sum(each.values()) * 2)
        for place, each in enumerate(counts)
    ]


def test_the_most_frequent_codes_are_named_and_the_rest_together() -> None:
    chart = draw(hours({f"CODE_{number}": 20 - number for number in range(9)}))
    assert [code for code, _ in chart.legend] == ["CODE_0", "CODE_1", "CODE_2", "CODE_3", "CODE_4", OTHER]
    assert len(chart.legend) == MOST_SERIES
    assert sum(number for _, number in chart.legend) == chart.total == sum(range(12, 21))


def test_bars_of_an_hour_stand_on_each_other_and_reach_their_sum() -> None:
    chart = draw(hours({"A": 3, "B": 1}))
    lower, upper = chart.bars
    assert lower.y + lower.height == pytest.approx(HEIGHT - BOTTOM, abs=0.2)
    assert upper.y + upper.height == pytest.approx(lower.y, abs=0.2)
    assert upper.y == TOP
    assert lower.title == "00:00 UTC: 3 A; 50.0 % of what ran failed"


def test_without_errors_there_is_a_scale_and_no_bar() -> None:
    chart = draw(hours({}, {}))
    assert chart.bars == ()
    assert [mark.text for mark in chart.rows] == ["0", "1", "2", "3", "4"]
    assert error_rate(hours({}, {})) == 0


@given(st.lists(st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.integers(1, 10**7)), max_size=24))
def test_nothing_is_drawn_outside(counts: list[dict[str, int]]) -> None:
    chart = draw(hours(*counts))
    for bar in chart.bars:
        assert bar.x >= LEFT
        assert bar.x + bar.width <= WIDTH
        assert bar.y >= TOP - 0.1
        assert bar.y + bar.height <= HEIGHT - BOTTOM + 0.2
        assert 0 <= bar.series < MOST_SERIES
    assert chart.total == sum(number for _, number in chart.legend)
