"""An evaluator on a database of its own, in a situation that the test makes up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from techdeck_tasks.alerts.channels import Channels
from techdeck_tasks.alerts.condition import Severity, load_conditions
from techdeck_tasks.alerts.evaluator import AlertEvaluator, Evaluation
from techdeck_tasks.alerts.record import AlertRecord
from techdeck_tasks.alerts.situation import ATTRIBUTES, Situation
from techdeck_tasks.alerts.state import Policy
from techdeck_tasks.alerts.store import AlertStore
from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.testing.clock import START, FakeClock

MINUTE = timedelta(minutes=1)


@dataclass
class Inbox:
    """A channel that keeps what it is sent, or says why not."""

    name: str
    problem: str | None = None
    titles: list[str] = field(default_factory=list)

    def check(self) -> None: ...

    def send(self, title: str, body: str, severity: Severity) -> str | None:
        if self.problem is None:
            self.titles.append(title)
        return self.problem

    def read(self) -> list[str]:
        """Return the new titles, without the tenant."""
        titles = [title.removeprefix("[clinic] ") for title in self.titles]
        self.titles.clear()
        return titles


@dataclass
class Trail:
    """An audit trail in memory, which may be away."""

    events: list[AuditEvent] = field(default_factory=list)
    away: bool = False

    def record(self, event: AuditEvent) -> None:
        if self.away:
            raise AuditUnavailableError("no disk, no Redis")
        self.events.append(event)

    def operations(self) -> list[str]:
        """Return what is on record since the last time."""
        operations = [event.operation for event in self.events]
        self.events.clear()
        return operations


class Ward:
    """What the tests turn: the situation, the time, the channels."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = FakeClock()
        self.situation: dict[str, Any] = {}
        self.mail = Inbox("primary-1 (mailto)")
        self.pager = Inbox("escalation-1 (pagerduty)")
        self.channels = Channels((self.mail,), (self.pager,))
        self.trail = Trail()
        self.policy = Policy()
        self.notified: list[tuple[str, tuple[str, ...], str]] = []
        self.refuse_notified: Exception | None = None
        self.store = AlertStore(engine, AlertRecord(self.trail, 30), self.clock)

    def evaluator(self) -> AlertEvaluator:
        """Return an evaluator as another process would have it."""
        nothing = Situation(now=START)

        def source(name: str) -> Callable[[], Any]:
            def read() -> Any:
                value = self.situation.get(name, getattr(nothing, name))
                if isinstance(value, Exception):
                    raise value
                return value

            return read

        return AlertEvaluator(
            engine=self.engine,
            conditions=load_conditions(),
            sources={name: source(name) for name in ATTRIBUTES},
            channels=self.channels,
            policy=self.policy,
            record=AlertRecord(self.trail, 30),
            clock=self.clock,
            tenant="clinic",
            on_delivered=self._on_delivered,
        )

    def _on_delivered(self, alert_type: str, items: Iterable[str], channel: str) -> None:
        if self.refuse_notified is not None:
            raise self.refuse_notified
        self.notified.append((alert_type, tuple(items), channel))

    def evaluate(self, *, after: timedelta = MINUTE, **situation: Any) -> Evaluation:
        """Let the time pass, change the situation, and evaluate."""
        self.clock.elapsed += after.total_seconds()
        self.situation |= situation
        return self.evaluator().evaluate()


@pytest.fixture
def ward(own_database: Engine) -> Ward:
    return Ward(own_database)
