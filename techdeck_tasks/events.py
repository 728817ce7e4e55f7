"""What happens, as frozen facts, and who may hear of it.

Layers that must not know each other meet here: `resilience` emits, `metrics` and `alerts` listen, and only
`runtime` ties them together. The audit log is no listener: the handler hands to it explicitly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of the attempt in which an error was handled."""

    RETRY = "retry"
    PARKED = "parked"
    FALLBACK = "fallback"
    FAILED = "failed"
    RESPONDED = "responded"
    """Outside a task: answered to a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorHandled:
    """An error went through the handler. `attempt` counts from 0; `occurred_at` is aware UTC."""

    error_id: str
    error_code: str
    severity: str
    recoverable: bool
    hipaa_related: bool
    service: str
    operation: str
    outcome: Outcome
    occurred_at: datetime
    task_name: str | None = None
    task_id: str | None = None
    attempt: int | None = None
    pipeline_id: str | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSucceeded:
    """A task's body returned. `duration_s` is the body's run time in seconds."""

    service: str
    operation: str
    duration_s: float
    attempt: int
    occurred_at: datetime
    fallback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """Another attempt was scheduled, `delay_s` seconds away; `attempt` is the one that failed, from 0."""

    service: str
    operation: str
    error_code: str
    attempt: int
    delay_s: float
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplianceNotice:
    """An error whose code asks for HIPAA notification."""

    error_id: str
    error_code: str
    violation_type: str | None
    severity: str
    occurred_at: datetime
    requires_review: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerTransition:
    """A breaker changed its state: closed, open, half-open, forced-open, disabled or shadow."""

    name: str
    old_state: str
    new_state: str
    epoch: int
    reason: str
    occurred_at: datetime
    owner: str | None = None


Event = ErrorHandled | ExecutionSucceeded | RetryScheduled | ComplianceNotice | BreakerTransition


class Listener(Protocol):
    """Hears of every event, in the process and thread where it happened; must return quickly."""

    def on_event(self, event: Event) -> None:
        """Take note of `event`."""


class Listeners:
    """Hands each event to every listener; a listener's failure is logged and never reaches the emitter."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = list(listeners)
        self.failures = 0

    def add(self, listener: Listener) -> None:
        """Let `listener` hear of every event from now on."""
        self._listeners.append(listener)

    def on_event(self, event: Event) -> None:
        """Tell everyone of `event`. Never raises."""
        for listener in self._listeners:
            try:
                listener.on_event(event)
            except Exception:
                self.failures += 1
                logger.exception("listener %s failed on %s", type(listener).__name__, type(event).__name__)
