from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from techdeck_tasks.audit.event import AuditEvent, new_event_id, time_of
from techdeck_tasks.errors import ValidationError


def test_an_event_id_is_a_uuid7_of_the_moment_it_was_made() -> None:
    before = time.time_ns()
    made = new_event_id()
    after = time.time_ns()
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before // 1_000_000 <= int(time_of(made).timestamp() * 1000) <= after // 1_000_000


def test_a_burst_of_ids_does_not_run_ahead_of_the_clock() -> None:
    ids = [new_event_id() for _ in range(20_000)]
    assert len(set(ids)) == len(ids)
    assert time_of(ids[-1]) <= datetime.now(UTC)


def test_ids_sort_by_time_within_a_millisecond() -> None:
    base = 1_700_000_000_000_000_000
    ids = [new_event_id(base + offset) for offset in range(0, 1_000_000, 1000)]
    assert ids == sorted(ids)


@pytest.mark.parametrize("ns", [0, 1, 999_999, 1_700_000_000_123_456_789])
def test_the_time_inside_an_id_is_exact_to_the_millisecond(ns: int) -> None:
    assert int(time_of(new_event_id(ns)).timestamp() * 1000) == ns // 1_000_000


@pytest.mark.parametrize("foreign", [uuid.uuid4(), uuid.uuid1(), uuid.UUID(int=0)])
def test_an_event_refuses_an_id_that_holds_no_time(
    foreign: uuid.UUID, new_event: Callable[..., AuditEvent]
) -> None:
    with pytest.raises(ValidationError, match="UUIDv7"):
        new_event(event_id=foreign)


def test_an_id_beyond_the_calendar_is_refused() -> None:
    beyond = uuid.UUID(int=((1 << 48) - 1) << 80 | 7 << 76 | 2 << 62)
    with pytest.raises(ValidationError, match="9999"):
        time_of(beyond)


def test_the_ids_of_user_and_subject_are_absent_from_the_repr(new_event: Callable[..., AuditEvent]) -> None:
    assert "jane" not in repr(new_event(user_id="jane", subject_id="jane"))
