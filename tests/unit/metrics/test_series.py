"""Events become increments of series, and series survive their encoding."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.events import ExecutionSucceeded
from techdeck_tasks.metrics.series import DURATION_BOUNDS_S, Kind, Series, increments_of

NOW = datetime(2026, 3, 4, tzinfo=UTC)
names = st.text(max_size=150)


def ran(service: str, operation: str, duration_s: float = 0.01) -> ExecutionSucceeded:
    return ExecutionSucceeded(
        service=service, operation=operation, duration_s=duration_s, attempt=0, occurred_at=NOW
    )


@given(service=names, operation=names)
def test_any_name_is_encoded_within_bounds_and_read_back(service: str, operation: str) -> None:
    for series, _ in increments_of(ran(service, operation)):
        assert Series.decode(series.encode()) == series
        assert len(series.encode()) < 250


@given(st.floats(0, 1e5))
def test_a_run_time_falls_into_the_bucket_whose_bound_holds_it(duration_s: float) -> None:
    counts = {series.kind: (series, n) for series, n in increments_of(ran("lab", "x", duration_s))}
    bucket = int(counts[Kind.DURATION][0].code)
    bounds = (*DURATION_BOUNDS_S, float("inf"))
    assert duration_s <= bounds[bucket]
    assert bucket == 0 or duration_s > bounds[bucket - 1]
    assert counts[Kind.DURATION_SUM][1] == round(duration_s * 1e6)
