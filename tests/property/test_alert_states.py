"""The life of an alert, against the sequence of evaluations that it was made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.alerts.condition import Finding, Severity
from techdeck_tasks.alerts.state import Alert, AlertState, Notice, Policy, advance, announce

START = datetime(2026, 1, 1, tzinfo=UTC)
FINDING = Finding("dead_letters", Severity.WARNING, "3 tasks failed for good", value=3.0, threshold=0)

SIGHTS = st.lists(st.booleans(), max_size=60)
POLICIES = st.builds(Policy, fire_after=st.integers(1, 4), resolve_after=st.integers(1, 4))


def lives(sights: list[bool], policy: Policy) -> list[tuple[Alert | None, list[Notice]]]:
    """Return the alert and its notices after each evaluation, one a minute; None: none is active."""
    alert: Alert | None = None
    told: list[tuple[Alert | None, list[Notice]]] = []
    for minute, seen in enumerate(sights):
        now = START + timedelta(minutes=minute)
        finding = FINDING if seen else None
        alert = advance(alert, finding, now, policy)
        notices: list[Notice] = []
        if alert is not None:
            alert, notices = announce(alert, finding, now, policy, can_escalate=True)
        told.append((alert, notices))
        if alert is not None and alert.state is AlertState.RESOLVED:
            alert = None
    return told


@given(SIGHTS, POLICIES)
def test_it_fires_after_enough_sights_in_a_row_and_ends_after_enough_misses(
    sights: list[bool], policy: Policy
) -> None:
    firing, held, missed = False, 0, 0
    for seen, (alert, _) in zip(sights, lives(sights, policy), strict=True):
        held, missed = (held + 1, 0) if seen else (0, missed + 1)
        if not firing and held >= policy.fire_after:
            firing = True
        elif firing and missed >= policy.resolve_after:
            firing = False
            assert alert is not None
            assert alert.state is AlertState.RESOLVED
            continue
        assert firing == (alert is not None and alert.state is AlertState.FIRING)


@given(SIGHTS, POLICIES)
def test_firing_and_resolved_are_told_in_turns_and_nothing_else_within_the_hour(
    sights: list[bool], policy: Policy
) -> None:
    calm = Policy(policy.fire_after, policy.resolve_after, timedelta(hours=4), timedelta(hours=2))
    told = [notice for _, notices in lives(sights, calm) for notice in notices]
    assert told == [Notice.FIRING, Notice.RESOLVED] * (len(told) // 2) + [Notice.FIRING] * (len(told) % 2)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200))
def test_what_goes_on_is_repeated_at_its_time_and_escalated_once(
    repeat_min: int, escalate_min: int, lasts_min: int
) -> None:
    policy = Policy(
        repeat_after=timedelta(minutes=repeat_min), escalate_after=timedelta(minutes=escalate_min)
    )
    told = [notice for _, notices in lives([True] * lasts_min, policy) for notice in notices]
    assert told.count(Notice.FIRING) == 1
    assert told.count(Notice.REMINDER) == (lasts_min - 1) // repeat_min
    assert told.count(Notice.ESCALATION) == (lasts_min > escalate_min)
