"""What a breaker is at one moment, as its store tells it: frozen facts without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from techdeck_tasks.resilience.breaker.config import BreakerConfig


class State(StrEnum):
    """Where a breaker stands. The last three are an operator's overrides of the first three."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    FORCED_OPEN = "forced-open"
    """No call goes through."""
    DISABLED = "disabled"
    """Every call goes through and nothing is counted."""
    SHADOW = "shadow"
    """Every call goes through; the breaker counts and changes as it would, and only reports."""


OVERRIDES = frozenset({State.FORCED_OPEN, State.DISABLED, State.SHADOW})


class Grant(StrEnum):
    """What a store says to a call that asks to be let through."""

    PASS = "pass"  # noqa: S105 - no password
    """An ordinary call."""
    PROBE = "probe"
    """A probe: holds a lease until it settles."""
    DENIED = "denied"


class ProbeOutcome(StrEnum):
    """What became of a probe."""

    OK = "ok"
    FAILED = "failed"
    SLOW = "slow"
    """It succeeded, but took too long to prove health: counts as failed."""
    IGNORED = "ignored"
    """It says nothing: only the lease is freed."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of epoch. `at_ms` is the store's time, milliseconds since 1970 UTC."""

    old: str
    new: str
    epoch: int
    reason: str
    owner: str
    at_ms: int

    @property
    def occurred_at(self) -> datetime:
        """When it happened, aware, UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Batch:
    """Successes of closed calls that a process has not yet told.

    Attributes:
        epoch: the epoch in which they happened; in another they count for nothing.
        ok: successes that were not slow.
        slow: successes that were.
        age_ms: how long ago the last of them ended, by this process's monotonic clock: its wall clock may be
            skewed. A success only ends a row of failures that happened before it.
    """

    epoch: int = 0
    ok: int = 0
    slow: int = 0
    age_ms: int = 0


NOTHING = Batch()


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's decision over a breaker.

    Attributes:
        state: forced-open, disabled or shadow.
        left_ms: how long it still holds, in milliseconds; 0: until it is cleared.
        owner: who decided.
        reason: why.
    """

    state: State
    left_ms: int
    owner: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A breaker as its store saw it, after the operation that asked.

    Attributes:
        state: closed, open or half-open, below any override.
        epoch: number of the period; 0 before the first transition.
        now_ms: the store's time, milliseconds since 1970 UTC.
        open_left_ms: until an open breaker lets a probe through.
        failures: failures in a row, or within the window.
        trips: openings in a row without a healthy period between.
        probe_successes: successful probes of this half-open period.
        last_failure_ms: the store's time of the last counted failure; 0: none.
        drain_left_ms: how long calls are still paced.
        override: what an operator decided; None: nothing.
        calls: calls within the window.
        slow: slow calls within the window.
        grant: the answer to `BreakerStore.lease`.
        wait_ms: how long a denied call had better wait.
        counted: whether the reported result changed anything.
        retry_allowed: whether the retry budget paid for a retry.
        transitions: what this very operation changed; whoever receives them is the only one.
    """

    state: State
    epoch: int
    now_ms: int
    open_left_ms: int = 0
    failures: int = 0
    trips: int = 0
    probe_successes: int = 0
    last_failure_ms: int = 0
    drain_left_ms: int = 0
    override: Override | None = None
    calls: int = 0
    slow: int = 0
    grant: Grant = Grant.PASS
    wait_ms: int = 0
    counted: bool = False
    retry_allowed: bool = True
    transitions: tuple[Transition, ...] = field(default=())

    @property
    def effective(self) -> State:
        """The override where there is one, else the state."""
        return self.state if self.override is None else self.override.state

    def aged(self, ms: int) -> Reply:
        """Return what is known `ms` milliseconds later, if nothing happened meanwhile."""
        override = self.override
        if override is not None and override.left_ms:
            left_ms = override.left_ms - ms
            override = replace(override, left_ms=left_ms) if left_ms > 0 else None
        return replace(self, open_left_ms=max(self.open_left_ms - ms, 0), override=override)


class StoreAwayError(Exception):
    """The store did not answer. Never leaves the breaker."""


class BreakerStore(Protocol):
    """Where breakers live. Every operation is atomic; `name` says of which breaker.

    Raises:
        StoreAwayError: from every method, where the store does not answer.
    """

    def sync(self, name: str, config: BreakerConfig, batch: Batch) -> Reply:
        """Count the successes of `batch`, and tell the state."""

    def fail(self, name: str, config: BreakerConfig, batch: Batch, *, epoch: int, cost: int) -> Reply:
        """Count `batch`, then one failure of a closed call of `epoch`; charge `cost` tokens for a retry."""

    def lease(self, name: str, config: BreakerConfig, permit_id: str) -> Reply:
        """Ask for a call: passes, leases a probe (or renews the lease `permit_id` holds), or denies."""

    def settle(
        self,
        name: str,
        config: BreakerConfig,
        *,
        epoch: int,
        permit_id: str,
        outcome: ProbeOutcome,
        cost: int,
    ) -> Reply:
        """End the probe `permit_id` of `epoch`; counts only while its lease is live."""

    def override(
        self, name: str, config: BreakerConfig, state: State, *, ttl_ms: int, owner: str, reason: str
    ) -> Reply:
        """Set an override for `ttl_ms` milliseconds; 0: until it is cleared."""

    def clear(self, name: str, config: BreakerConfig, *, owner: str, reason: str) -> Reply:
        """End an override."""

    def hold(self, name: str, config: BreakerConfig, *, hold_ms: int, reason: str) -> Reply:
        """Open the breaker for at least `hold_ms`; an open one is only prolonged."""

    def reset(self, name: str, config: BreakerConfig, *, owner: str, reason: str) -> Reply:
        """Close the breaker and forget its counts; an override stays."""

    def names(self) -> Sequence[str]:
        """Return the names that had a transition, the most recent last."""

    def transitions(self, cursors: Mapping[str, str], limit: int) -> Sequence[tuple[str, str, Transition]]:
        """Return up to `limit` transitions of each name after its cursor: (name, cursor, transition)."""
