"""What a process may decide by itself from the last reply, and until when. Pure.

A closed breaker passes calls for `snapshot_s` without asking; an open one rejects until its deadline, but
asks once each `open_refresh_s` whether an operator has reset or overridden it. Deadlines are on this
process's monotonic clock: replies carry durations, so the clocks of client and server need not agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from techdeck_tasks.resilience.breaker.state import Grant, Reply, State

if TYPE_CHECKING:
    from techdeck_tasks.resilience.breaker.config import BreakerConfig
    from techdeck_tasks.resilience.breaker.state import BreakerStore

_LONGEST_HALF_OPEN_WAIT_S = 1.0


class Step(Enum):
    """What to do with a call."""

    PASS = auto()
    """Let it through and count its result."""
    FREE = auto()
    """Let it through and count nothing: disabled, or shadow would have rejected it."""
    REJECT = auto()
    ASK = auto()
    """Ask the store how things stand."""
    LEASE = auto()
    """Ask the store for this very call."""


@dataclass(frozen=True, slots=True)
class View:
    """The last reply and what follows from it.

    Attributes:
        step: what to do until `until` (monotonic seconds).
        then: what to do from then on: ASK or LEASE.
        reject_until: when a rejected call may be let through (monotonic seconds).
        epoch: the reply's.
        streak: failures in a row that the next success must end at once.
        reply: the reply itself; None before the first.
        store: who gave it.
        at: when it came (monotonic seconds).
    """

    step: Step
    until: float
    then: Step
    reject_until: float = 0.0
    epoch: int = 0
    streak: bool = False
    reply: Reply | None = None
    store: BreakerStore | None = None
    at: float = -math.inf

    def step_at(self, now: float) -> Step:
        """Return what to do at `now` (monotonic seconds); at its own `at` it always still holds."""
        return self.step if now <= self.until else self.then


UNKNOWN = View(Step.ASK, -math.inf, Step.ASK)
"""Before anything was heard."""


def view_of(reply: Reply, store: BreakerStore, config: BreakerConfig, now: float) -> View:
    """Return what follows from `reply`, which came from `store` at `now` (monotonic seconds)."""
    step, until, then, reject_until = _plan(reply, config, now)
    if reply.effective is State.SHADOW and step is Step.REJECT:
        step = Step.FREE
    if reply.override is not None and reply.override.left_ms:
        ends = now + reply.override.left_ms / 1000
        if ends <= until:
            until, then = ends, Step.ASK
    return View(
        step=step,
        until=until,
        then=then,
        reject_until=reject_until,
        epoch=reply.epoch,
        # Within a window a success may wait for the next batch; a row of failures it must end in time.
        streak=reply.failures > 0 and not config.numbers["rated"],
        reply=reply,
        store=store,
        at=now,
    )


def _plan(reply: Reply, config: BreakerConfig, now: float) -> tuple[Step, float, Step, float]:
    fresh = now + config.snapshot_s
    if reply.effective is State.DISABLED:
        return Step.FREE, fresh, Step.ASK, 0.0
    if reply.override is not None and reply.override.state is State.FORCED_OPEN:
        left_ms = reply.override.left_ms or config.numbers["open_ms"]
        return Step.REJECT, now + config.open_refresh_s, Step.ASK, now + left_ms / 1000
    if reply.state is State.OPEN and reply.open_left_ms:
        opens, refresh = now + reply.open_left_ms / 1000, now + config.open_refresh_s
        then = Step.LEASE if opens <= refresh else Step.ASK
        return Step.REJECT, min(opens, refresh), then, opens
    if reply.state is State.CLOSED and not reply.drain_left_ms:
        return Step.PASS, fresh, Step.ASK, 0.0
    return _plan_scarce(reply, config, now)


def _plan_scarce(reply: Reply, config: BreakerConfig, now: float) -> tuple[Step, float, Step, float]:
    """Half-open, about to be, or paced: the store decides over each call; a denial holds for a moment."""
    ends = now + reply.drain_left_ms / 1000 if reply.state is State.CLOSED else math.inf
    if reply.grant is not Grant.DENIED:
        return Step.LEASE, ends, Step.ASK, now
    wait_s = reply.wait_ms / 1000
    again = min(now + wait_s, now + config.snapshot_s)
    if reply.state is State.CLOSED:
        return Step.REJECT, again, Step.LEASE, ends
    # A lease may last an hour, a probe rarely does.
    wait_s = min(wait_s, max(_LONGEST_HALF_OPEN_WAIT_S, config.open_s / 10))
    return Step.REJECT, again, Step.LEASE, now + wait_s
