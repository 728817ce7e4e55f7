"""What becomes of an alert from evaluation to evaluation, and who must hear of it. Pure."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from techdeck_tasks.alerts.condition import Finding


class AlertState(StrEnum):
    """Where an alert stands."""

    PENDING = "pending"
    """Set at the first evaluation that finds it, where more than one must; forgotten when it is gone."""
    FIRING = "firing"
    """Set when it was found often enough in a row."""
    RESOLVED = "resolved"
    """Set when it was gone often enough in a row, for good: the next time is another alert."""


class Notice(StrEnum):
    """What people are told of an alert."""

    FIRING = "firing"
    REMINDER = "reminder"
    ESCALATION = "escalation"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Policy:
    """When alerts fire, end and are repeated.

    Attributes:
        fire_after: evaluations in a row that must find it, >= 1.
        resolve_after: evaluations in a row that must not, >= 1.
        repeat_after: until a reminder of an alert that nobody acknowledged.
        escalate_after: until the second list of channels hears of it.
    """

    fire_after: int = 1
    resolve_after: int = 2
    repeat_after: timedelta = timedelta(hours=4)
    escalate_after: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert as the table has it; moments are aware UTC.

    Attributes:
        key: what is wrong: type and subject; at most one alert a key is not resolved.
        items: ids of what people were told of, see `Finding.items`.
        held: evaluations in a row that found it.
        missed: evaluations in a row that did not.
        announced_at: when people were first to be told; reminded_at: the last time after that.
        notified_at: when a channel first accepted it.
    """

    alert_id: uuid.UUID
    key: str
    alert_type: str
    subject: str | None
    severity: str
    state: AlertState
    message: str
    value: float | None
    threshold: float | None
    items: frozenset[str]
    held: int
    missed: int
    first_seen: datetime
    last_seen: datetime
    fired_at: datetime | None = None
    announced_at: datetime | None = None
    reminded_at: datetime | None = None
    escalated_at: datetime | None = None
    notified_at: datetime | None = None
    resolved_at: datetime | None = None
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def advance(alert: Alert | None, finding: Finding | None, now: datetime, policy: Policy) -> Alert | None:
    """Return the alert after one evaluation; None: there is none, or it never fired and is forgotten.

    Args:
        alert: the one that is not resolved, if there is one.
        finding: what was found under its key.
        now: the time of the evaluation.
        policy: how often it must be found, or not.
    """
    if finding is None:
        if alert is None or alert.state is AlertState.PENDING:
            return None
        gone = replace(alert, held=0, missed=alert.missed + 1)
        if gone.missed < policy.resolve_after:
            return gone
        return replace(gone, state=AlertState.RESOLVED, resolved_at=now)
    held = 1 if alert is None else alert.held + 1
    seen = replace(
        alert or _new(finding, now),
        severity=finding.severity.value,
        message=finding.message,
        value=finding.value,
        threshold=finding.threshold,
        held=held,
        missed=0,
        last_seen=now,
    )
    if seen.state is AlertState.PENDING and held >= policy.fire_after:
        return replace(seen, state=AlertState.FIRING, fired_at=now)
    return seen


def announce(
    alert: Alert, finding: Finding | None, now: datetime, policy: Policy, *, can_escalate: bool
) -> tuple[Alert, list[Notice]]:
    """Return what people must be told of an alert that nobody silenced, and the alert when they were.

    Judged by what was told before, not by what changed: what fell into a silence is told when it ends.

    Args:
        alert: after this evaluation.
        finding: what was found under its key.
        now: the time of the evaluation.
        policy: when to repeat and escalate.
        can_escalate: whether there is a second list of channels.
    """
    if alert.state is AlertState.RESOLVED:
        return alert, [Notice.RESOLVED] if alert.announced_at is not None else []
    if alert.state is AlertState.PENDING:
        return alert, []
    items = finding.items if finding is not None else frozenset[str]()
    announced_at = alert.announced_at
    if announced_at is None:
        return replace(alert, announced_at=now, items=items), [Notice.FIRING]
    notices: list[Notice] = []
    if items - alert.items:
        # Other things than those somebody has acknowledged.
        alert = replace(alert, items=items, reminded_at=now)
        notices.append(Notice.FIRING)
    if alert.acknowledged_at is not None:
        return alert, notices
    if not notices and now - (alert.reminded_at or announced_at) >= policy.repeat_after:
        alert = replace(alert, reminded_at=now)
        notices.append(Notice.REMINDER)
    overdue = now - announced_at >= policy.escalate_after
    if can_escalate and alert.escalated_at is None and overdue:
        alert = replace(alert, escalated_at=now)
        notices.append(Notice.ESCALATION)
    return alert, notices


def _new(finding: Finding, now: datetime) -> Alert:
    return Alert(
        alert_id=uuid.uuid4(),
        key=finding.key,
        alert_type=finding.alert_type,
        subject=finding.subject,
        severity=finding.severity.value,
        state=AlertState.PENDING,
        message=finding.message,
        value=finding.value,
        threshold=finding.threshold,
        items=frozenset(),
        held=0,
        missed=0,
        first_seen=now,
        last_seen=now,
    )


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case frozenset():
            return sorted(value)
    return value
