"""Breakers within one process: the same operations as on Redis, without it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from techdeck_tasks.resilience.breaker.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from techdeck_tasks.resilience.breaker.config import BreakerConfig
    from techdeck_tasks.resilience.breaker.state import Batch, ProbeOutcome, Reply, State, Transition

MAX_BREAKERS = 10_000


class MemoryBreakerStore:
    """A `BreakerStore` for one process, safe between its threads; never away.

    Args:
        now_ms: gives the time in whole milliseconds.
        max_breakers: how many are kept; beyond it the one that was used longest ago is forgotten.
    """

    def __init__(self, now_ms: Callable[[], int], *, max_breakers: int = MAX_BREAKERS) -> None:
        self._now_ms = now_ms
        self._max_breakers = max_breakers
        self._machines: OrderedDict[str, Machine] = OrderedDict()
        self._lock = threading.Lock()

    def resume(self, name: str, reply: Reply) -> None:
        """Let `name` go on from what another store said last."""
        with self._lock:
            self._machines[name] = Machine.resume(reply, self._now_ms())

    def forget_all(self) -> None:
        """Lose everything, as Redis does at FLUSHALL."""
        with self._lock:
            self._machines.clear()

    def sync(self, name: str, config: BreakerConfig, batch: Batch) -> Reply:
        """Count the successes of `batch`, and tell the state."""
        with self._lock:
            return self._begin(name, config).sync(batch)

    def fail(self, name: str, config: BreakerConfig, batch: Batch, *, epoch: int, cost: int) -> Reply:
        """Count `batch`, then one failure of a closed call of `epoch`; charge `cost` tokens for a retry."""
        with self._lock:
            return self._begin(name, config).fail(batch, epoch, cost)

    def lease(self, name: str, config: BreakerConfig, permit_id: str) -> Reply:
        """Ask for a call: passes, leases a probe, or denies."""
        with self._lock:
            return self._begin(name, config).lease(permit_id)

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
        with self._lock:
            return self._begin(name, config).settle(epoch, permit_id, outcome, cost)

    def override(
        self, name: str, config: BreakerConfig, state: State, *, ttl_ms: int, owner: str, reason: str
    ) -> Reply:
        """Set an override for `ttl_ms` milliseconds; 0: until it is cleared."""
        with self._lock:
            return self._begin(name, config).set_override(state, ttl_ms, owner, reason)

    def clear(self, name: str, config: BreakerConfig, *, owner: str, reason: str) -> Reply:
        """End an override."""
        with self._lock:
            return self._begin(name, config).clear_override(owner, reason)

    def hold(self, name: str, config: BreakerConfig, *, hold_ms: int, reason: str) -> Reply:
        """Open the breaker for at least `hold_ms`; an open one is only prolonged."""
        with self._lock:
            return self._begin(name, config).hold(hold_ms, reason)

    def reset(self, name: str, config: BreakerConfig, *, owner: str, reason: str) -> Reply:
        """Close the breaker and forget its counts; an override stays."""
        with self._lock:
            return self._begin(name, config).reset(owner, reason)

    def names(self) -> list[str]:
        """Return the names that had a transition, the most recent last."""
        with self._lock:
            changed = [
                (machine.events[-1].at_ms, name) for name, machine in self._machines.items() if machine.events
            ]
        return [name for _, name in sorted(changed)]

    def transitions(self, cursors: Mapping[str, str], limit: int) -> list[tuple[str, str, Transition]]:
        """Return up to `limit` transitions of each name after its cursor: (name, cursor, transition)."""
        found = []
        with self._lock:
            for name, machine in self._machines.items():
                # Epochs only grow: they serve as cursors.
                after = int(cursors.get(name, "-1"))
                later = [event for event in machine.events if event.epoch > after]
                found += [(name, str(event.epoch), event) for event in later[:limit]]
        return found

    def _begin(self, name: str, config: BreakerConfig) -> Machine:
        machine = self._machines.get(name)
        if machine is None:
            machine = self._machines[name] = Machine()
            if len(self._machines) > self._max_breakers:
                self._machines.popitem(last=False)
        self._machines.move_to_end(name)
        machine.begin(config, self._now_ms())
        return machine
