from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.audit.canonical import decode
from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.gap import MAX_RANGES, Gap, lost_numbers


def test_a_gap_counts_by_severity_and_names_time_and_numbers(
    sealer: Sealer, new_event: Callable[..., AuditEvent]
) -> None:
    events = [new_event(severity=severity) for severity in ("low", "high", "high", "low")]
    sealed = [sealer.seal(event) for event in events]
    gaps = [Gap.of(event, seal) for event, seal in zip(events, sealed, strict=True)]
    gap = reduce(Gap.joined, (gaps[0], gaps[1], gaps[3]))
    assert gap.lost == {"low": 2, "high": 1}
    assert (gap.first_at, gap.last_at) == (events[0].occurred_at, events[3].occurred_at)
    assert gap.as_event().outcome == "lost 3: 1-2,4"
    assert gap.as_event().document["producer_sequences"] == [[1, 2], [4, 4]]


@given(st.lists(st.integers(1, 400), min_size=1, unique=True))
def test_a_gap_names_each_number_once_and_is_bounded(numbers: list[int]) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    gap = reduce(Gap.joined, (Gap({"low": 1}, moment, moment, ((n, n),), 1) for n in numbers))
    assert gap.count == len(numbers)
    named = [number for first, last in gap.sequences for number in range(first, last + 1)]
    assert named == sorted(set(named))
    assert len(gap.sequences) <= MAX_RANGES
    assert set(named) <= set(numbers)
    assert len(gap.sequences) == MAX_RANGES or set(named) == set(numbers)


@pytest.mark.parametrize("step", [2, 10**7 + 3, 10**9 + 7])
def test_what_a_gap_says_in_the_clear_is_stored_and_read_again(
    sealer: Sealer, new_event: Callable[..., AuditEvent], step: int
) -> None:
    sealed, number = sealer.seal(new_event()), 80
    lost = [(n * step, n * step) for n in range(1, number + 1)]
    gaps = (replace(Gap.of(new_event(), sealed), sequences=(numbers,)) for numbers in lost)
    gap = reduce(Gap.joined, gaps)
    record = decode(sealer.seal(gap.as_event()).encoded)
    count, ranges = lost_numbers(record.outcome)
    assert count == number
    assert ranges == tuple(lost)[-len(ranges) :]
    assert ranges


@pytest.mark.parametrize(
    "outcome",
    [None, "retry", "lost 3: ", "lost 3: 3-1", "lost 1: 1-2", "lost 3: 1-3,", "lost ٣: 1", "lost 3: 1-2-3"],
)
def test_what_no_gap_says_is_no_loss(outcome: str | None) -> None:
    assert lost_numbers(outcome) == (0, ())
