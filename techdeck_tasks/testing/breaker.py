"""Circuit breakers for a test suite without Redis: the real breaker on a store in the process.

The store passes the same contract suite as the one on Redis. With a clock that the test sets, an open period
ends when the test says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.resilience.breaker.config import BreakerConfig
from techdeck_tasks.resilience.breaker.memory_store import MemoryBreakerStore
from techdeck_tasks.resilience.breaker.registry import BreakerRegistry
from techdeck_tasks.resilience.breaker.state import StoreAwayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from techdeck_tasks.events import Listener
    from techdeck_tasks.resilience.breaker.machine import Machine
    from techdeck_tasks.settings import Settings


class InMemoryBreakerStore(MemoryBreakerStore):
    """A breaker store whose time is the test's, and which the test can make unreachable.

    Args:
        clock: gives the store's time; default: the machine's.

    Attributes:
        away: set it to True, and the store behaves as a Redis that does not answer.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        now = (clock or SystemClock()).now
        super().__init__(lambda: round(now().timestamp() * 1000))
        self.away = False

    def names(self) -> list[str]:
        """Return the names that had a transition, the most recent last."""
        self._answer()
        return super().names()

    def _begin(self, name: str, config: BreakerConfig) -> Machine:
        self._answer()
        return super()._begin(name, config)

    def _answer(self) -> None:
        if self.away:
            raise StoreAwayError("made unreachable by the test")


def in_memory_breakers(
    settings: Settings,
    *,
    clock: Clock | None = None,
    listener: Listener | None = None,
    configs: Mapping[str, BreakerConfig] | None = None,
) -> BreakerRegistry:
    """Return a registry of real breakers on a store of their own in this process."""
    return BreakerRegistry(
        InMemoryBreakerStore(clock), settings, clock=clock, listener=listener, configs=configs
    )
