"""Whether errors become more is decided beyond chance."""

from __future__ import annotations

import pytest

from techdeck_tasks.metrics.trends import Direction, Tally, direction


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (Tally(10, 1000), Tally(50, 1000), Direction.RISING),
        (Tally(50, 1000), Tally(10, 1000), Direction.FALLING),
        (Tally(10, 1000), Tally(12, 1000), Direction.STEADY),
        (Tally(0, 3), Tally(1, 3), Direction.STEADY),
        (Tally(0, 0), Tally(9, 9), Direction.STEADY),
        (Tally(9, 9), Tally(9, 9), Direction.STEADY),
    ],
)
def test_a_difference_counts_only_beyond_chance(earlier: Tally, later: Tally, expected: Direction) -> None:
    assert direction(earlier, later) is expected
