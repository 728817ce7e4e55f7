from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from techdeck_tasks.cli.parking import parked_by

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {"state": "open", "retry_after_seconds": 62.0, "override": None},
            "breaker lab is open until 09:01:02 UTC",
        ),
        (
            {"state": "forced-open", "retry_after_seconds": 0.0, "override": {"seconds_left": 3600.0}},
            "breaker lab is forced-open until 10:00:00 UTC",
        ),
        (
            {"state": "forced-open", "retry_after_seconds": 0.0, "override": {"seconds_left": None}},
            "breaker lab is forced-open until it is cleared",
        ),
    ],
)
def test_an_open_breaker_is_named_with_its_end(status: dict[str, Any], said: str) -> None:
    assert str(parked_by("lab", status, NOW)) == said


@pytest.mark.parametrize("state", ["closed", "half-open", "disabled", "shadow", "unknown"])
def test_a_breaker_that_lets_calls_through_parks_nothing(state: str) -> None:
    assert parked_by("lab", {"state": state}, NOW) is None
