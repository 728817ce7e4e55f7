"""The breaker's state machine in Python: what answers in the process while Redis is away, and in tests.

Mirrors ``lua/state.lua`` and its operations; a property test runs both side by side. Time is handed in, in
whole milliseconds; nothing here does I/O, and nothing locks: a store does.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from techdeck_tasks.resilience.breaker.config import BUCKETS
from techdeck_tasks.resilience.breaker.state import (
    Batch,
    Grant,
    Override,
    ProbeOutcome,
    Reply,
    State,
    Transition,
)

if TYPE_CHECKING:
    from techdeck_tasks.resilience.breaker.config import BreakerConfig

EVENTS_KEPT = 64
_LONGEST_EXPONENT = 64


class Machine:
    """One breaker. `begin` opens every operation: it sets the time and ends an override that has expired."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.epoch = 0
        self.open_until = 0
        self.trips = 0
        self.open_ms = 0
        self.closed_at = 0
        self.failures = 0
        self.last_failure = 0
        self.probe_ok = 0
        self.drain_at = 0
        self.override: State | None = None
        self.override_until = 0
        self.override_owner = ""
        self.override_reason = ""
        self.tokens: int | None = None
        self.tokens_at = 0
        self.buckets: dict[int, tuple[int, int, int, int]] = {}
        self.leases: dict[str, int] = {}
        self.events: deque[Transition] = deque(maxlen=EVENTS_KEPT)
        self._fresh: list[Transition] = []
        self._numbers: dict[str, float] = {}
        self._now = 0
        self._grant = Grant.PASS
        self._wait_ms = 0
        self._counted = False
        self._retry_allowed = True

    @classmethod
    def resume(cls, reply: Reply, now_ms: int) -> Machine:
        """Return a machine that goes on from what a store said last, with `now_ms` for its present moment."""
        machine = cls()
        machine.state = reply.state
        machine.epoch = reply.epoch
        machine.open_until = now_ms + reply.open_left_ms
        machine.trips = reply.trips
        machine.failures = reply.failures
        if reply.override is not None:
            machine.override = reply.override.state
            machine.override_until = now_ms + reply.override.left_ms if reply.override.left_ms else 0
            machine.override_owner = reply.override.owner
            machine.override_reason = reply.override.reason
        return machine

    def begin(self, config: BreakerConfig, now_ms: int) -> None:
        """Start an operation at `now_ms`."""
        self._numbers = config.numbers
        self._now = now_ms
        self._fresh = []
        self._grant = Grant.PASS
        self._wait_ms = 0
        self._counted = False
        self._retry_allowed = True
        if self.tokens is None:
            self.tokens, self.tokens_at = self._int("tokens"), now_ms
        if self.override is not None and 0 < self.override_until <= now_ms:
            self._end_override("override expired", self.override_owner)

    # -- operations ------------------------------------------------------------------------------------

    def sync(self, batch: Batch) -> Reply:
        """As ``sync.lua``."""
        self._count_successes(batch)
        if self._counted and self._rated and self.state is State.CLOSED:
            self._trip_by_rate()
        return self._reply()

    def fail(self, batch: Batch, epoch: int, cost: int) -> Reply:
        """As ``fail.lua``."""
        self._count_successes(batch)
        self._charge(cost)
        self._counted = (
            epoch == self.epoch and self.state is State.CLOSED and self.override is not State.DISABLED
        )
        if self._counted:
            self.last_failure = self._now
            if self._rated:
                self._add_to_window(0, 1, 0)
                self._trip_by_rate()
            else:
                self.failures += 1
                if self.failures >= self._int("failure_threshold"):
                    self._trip("failure threshold")
        return self._reply()

    def lease(self, permit_id: str) -> Reply:
        """As ``lease.lua``."""
        if self.override is State.FORCED_OPEN:
            self._deny(self.override_until - self._now if self.override_until else self._int("open_ms"))
        elif self.override is not State.DISABLED:
            if self.state is State.OPEN and self._now >= self.open_until:
                self._shift(State.HALF_OPEN, "open period over")
            if self.state is State.OPEN:
                self._deny(self.open_until - self._now)
            elif self.state is State.HALF_OPEN:
                self._lease_probe(permit_id)
            elif self.closed_at > 0 and self._now < self.closed_at + self._int("drain_ms"):
                self._pace()
        return self._reply()

    def settle(self, epoch: int, permit_id: str, outcome: ProbeOutcome, cost: int) -> Reply:
        """As ``settle.lua``."""
        self._charge(cost)
        if epoch == self.epoch and self.state is State.HALF_OPEN:
            deadline = self.leases.pop(permit_id, 0)
            if deadline > self._now:
                self._counted = True
                self._tally_probe(outcome)
        return self._reply()

    def set_override(self, state: State, ttl_ms: int, owner: str, reason: str) -> Reply:
        """As ``override.lua``."""
        old = self.override or self.state
        self.override = state
        self.override_until = self._now + ttl_ms if ttl_ms > 0 else 0
        self.override_owner, self.override_reason = owner, reason
        self._change_epoch(old, state, reason, owner)
        return self._reply()

    def clear_override(self, owner: str, reason: str) -> Reply:
        """As ``override.lua`` without a state."""
        if self.override is not None:
            self._end_override(reason, owner)
        return self._reply()

    def hold(self, hold_ms: int, reason: str) -> Reply:
        """As ``hold.lua``."""
        hold_ms = min(hold_ms, self._int("open_cap_ms"))
        if self.override is not State.DISABLED:
            if self.state is not State.OPEN:
                self.open_ms = hold_ms
                self._open_for(hold_ms, reason)
                self._counted = True
            elif self._now + hold_ms > self.open_until:
                self.open_until = self._now + hold_ms
                self._counted = True
        return self._reply()

    def reset(self, owner: str, reason: str) -> Reply:
        """As ``reset.lua``."""
        if self.state is State.CLOSED:
            self._forget_counts()
        else:
            self._close(reason, owner)
        self.trips = self.open_ms = self.closed_at = 0
        self.tokens = self._int("tokens")
        return self._reply()

    # -- epochs ----------------------------------------------------------------------------------------

    def _change_epoch(self, old: State, new: State, reason: str, owner: str = "") -> None:
        self.epoch = max(self.epoch + 1, self._now)
        # Leases and successes of probes belong to one epoch, be it an override that ended it.
        self.leases.clear()
        self.probe_ok = 0
        event = Transition(old.value, new.value, self.epoch, reason, owner, self._now)
        self.events.append(event)
        self._fresh.append(event)

    def _shift(self, new: State, reason: str, owner: str = "") -> None:
        old, self.state = self.state, new
        self._change_epoch(old, new, reason, owner)

    def _open_for(self, ms: int, reason: str) -> None:
        self.open_until = self._now + ms
        self._shift(State.OPEN, reason)

    def _trip(self, reason: str) -> None:
        if self.state is State.CLOSED and self._now - self.closed_at >= self.open_ms:
            self.trips = 0
        self.trips += 1
        exponent = min(self.trips - 1, _LONGEST_EXPONENT)
        try:
            grown = self._numbers["open_ms"] * self._numbers["growth"] ** exponent
        except OverflowError:
            grown = math.inf
        self.open_ms = math.floor(min(grown, self._numbers["open_cap_ms"]))
        self._open_for(self.open_ms, reason)

    def _close(self, reason: str, owner: str = "") -> None:
        self._shift(State.CLOSED, reason, owner)
        self.open_until = self.drain_at = 0
        self.closed_at = self._now
        self._forget_counts()

    def _forget_counts(self) -> None:
        self.failures = 0
        self.buckets.clear()

    def _end_override(self, reason: str, owner: str) -> None:
        old = self.override or self.state
        self.override, self.override_until, self.override_owner, self.override_reason = None, 0, "", ""
        self._change_epoch(old, self.state, reason, owner)

    # -- counting --------------------------------------------------------------------------------------

    @property
    def _rated(self) -> bool:
        return bool(self._numbers["rated"])

    def _int(self, name: str) -> int:
        return int(self._numbers[name])

    def _window(self) -> tuple[int, int, int]:
        oldest = self._now // self._int("bucket_ms") - BUCKETS
        live = [bucket for bucket in self.buckets.values() if bucket[0] > oldest]
        failed = sum(bucket[2] for bucket in live)
        return sum(bucket[1] for bucket in live) + failed, failed, sum(bucket[3] for bucket in live)

    def _add_to_window(self, ok: int, failed: int, slow: int) -> None:
        this = self._now // self._int("bucket_ms")
        stored = self.buckets.get(this % BUCKETS)
        if stored is not None and stored[0] == this:
            ok, failed, slow = ok + stored[1], failed + stored[2], slow + stored[3]
        self.buckets[this % BUCKETS] = (this, ok, failed, slow)

    def _trip_by_rate(self) -> None:
        calls, failed, slow = self._window()
        if calls < self._int("minimum_calls"):
            return
        if failed >= self._numbers["failure_rate"] * calls:
            self._trip("failure rate")
        elif slow > 0 and slow >= self._numbers["slow_rate"] * calls:
            self._trip("slow-call rate")

    def _count_successes(self, batch: Batch) -> None:
        total = batch.ok + batch.slow
        if total == 0 or batch.epoch != self.epoch:
            return
        tokens = self.tokens or 0
        if tokens < self._int("tokens"):
            self.tokens = min(tokens + total * self._int("refund"), self._int("tokens"))
        if self.state is not State.CLOSED or self.override is State.DISABLED:
            return
        if self._rated:
            self._add_to_window(total, 0, batch.slow)
        elif self.failures and self._now - batch.age_ms >= self.last_failure:
            self.failures = 0
        self._counted = True

    def _charge(self, cost: int) -> None:
        if cost <= 0:
            return
        refilled = max(math.floor((self._now - self.tokens_at) * self._numbers["refill_per_s"]), 0)
        tokens = min((self.tokens or 0) + refilled, self._int("tokens"))
        self._retry_allowed = tokens >= cost * 1000
        if self._retry_allowed:
            self.tokens, self.tokens_at = tokens - cost * 1000, self._now

    def _tally_probe(self, outcome: ProbeOutcome) -> None:
        if outcome is ProbeOutcome.OK:
            self.probe_ok += 1
            if self.probe_ok >= self._int("success_threshold"):
                self._close("probes succeeded")
        elif outcome is ProbeOutcome.FAILED:
            self.last_failure = self._now
            self._trip("probe failed")
        elif outcome is ProbeOutcome.SLOW:
            self._trip("probe slow")

    # -- letting through -------------------------------------------------------------------------------

    def _deny(self, wait_ms: int) -> None:
        self._grant, self._wait_ms = Grant.DENIED, max(wait_ms, 1)

    def _lease_probe(self, permit_id: str) -> None:
        self.leases = {key: deadline for key, deadline in self.leases.items() if deadline > self._now}
        if permit_id not in self.leases and len(self.leases) >= self._int("probes"):
            self._deny(min(self.leases.values()) - self._now)
            return
        self.leases[permit_id] = self._now + self._int("lease_ms")
        self._grant = Grant.PROBE

    def _pace(self) -> None:
        slot = max(self.drain_at, self._now)
        if slot - self._now > self._int("drain_burst_ms"):
            self._deny(slot - self._now - self._int("drain_burst_ms"))
            return
        self.drain_at = slot + self._int("drain_step_ms")

    def _reply(self) -> Reply:
        calls, failures, slow = self._window() if self._rated else (0, self.failures, 0)
        drain_left = 0
        if self.state is State.CLOSED and self.closed_at > 0:
            drain_left = max(self.closed_at + self._int("drain_ms") - self._now, 0)
        override = None
        if self.override is not None:
            left_ms = self.override_until - self._now if self.override_until else 0
            override = Override(self.override, left_ms, self.override_owner, self.override_reason)
        return Reply(
            state=self.state,
            epoch=self.epoch,
            now_ms=self._now,
            open_left_ms=max(self.open_until - self._now, 0) if self.state is State.OPEN else 0,
            failures=failures,
            trips=self.trips,
            probe_successes=self.probe_ok,
            last_failure_ms=self.last_failure,
            drain_left_ms=drain_left,
            override=override,
            calls=calls,
            slow=slow,
            grant=self._grant,
            wait_ms=self._wait_ms,
            counted=self._counted,
            retry_allowed=self._retry_allowed,
            transitions=tuple(self._fresh),
        )
