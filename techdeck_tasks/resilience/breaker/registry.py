"""Every breaker of a process by name, bounded in number."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.resilience.breaker.circuit import CircuitBreaker
from techdeck_tasks.resilience.breaker.config import BreakerConfig
from techdeck_tasks.resilience.breaker.gate import StoreGate
from techdeck_tasks.resilience.breaker.redis_store import store_on
from techdeck_tasks.resilience.breaker.state import BreakerStore, StoreAwayError, Transition
from techdeck_tasks.resilience.forking import when_forked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from techdeck_tasks.clock import Clock
    from techdeck_tasks.events import Listener
    from techdeck_tasks.settings import Settings
    from techdeck_tasks.storage.redis_client import RedisClient

logger = logging.getLogger(__name__)


class BreakerRegistry:
    """Makes each breaker once, on the same client. Safe between threads and after a fork.

    Names may come from data (a host, a tenant): beyond `max_breakers` the one that was used longest ago is
    dropped here. Redis keeps its state, and by itself forgets an idle breaker (`BreakerConfig.idle_s`).

    Args:
        backend: a bounded client (`connect_redis`), or any `BreakerStore`.
        settings: give the configuration of breakers that have none of their own.
        clock: where the time comes from.
        listener: hears of the transitions that this process caused.
        configs: configurations by name.
        max_breakers: how many are kept in this process.
    """

    def __init__(
        self,
        backend: RedisClient | BreakerStore,
        settings: Settings,
        *,
        clock: Clock | None = None,
        listener: Listener | None = None,
        configs: Mapping[str, BreakerConfig] | None = None,
        max_breakers: int = 1000,
    ) -> None:
        if max_breakers < 1:
            raise ValueError(f"max_breakers is {max_breakers}; use at least 1")
        self._store: BreakerStore = store_on(backend)
        self._default = BreakerConfig.from_settings(settings)
        self._configs = dict(configs or {})
        self._clock = clock
        self._listener = listener
        self._max_breakers = max_breakers
        self._gate = StoreGate()
        self._breakers: OrderedDict[str, CircuitBreaker] = OrderedDict()
        self.start_empty()
        when_forked(self)

    def start_empty(self) -> None:
        """Make a new lock: at the start, and in a forked child, where a lost thread may hold the old one."""
        self._lock = threading.Lock()

    def get(self, name: str) -> CircuitBreaker:
        """Return the breaker `name`; made when first asked for. No round trip, unless one is dropped for it.

        Raises:
            ValueError: the name is malformed.
        """
        dropped = None
        with self._lock:
            breaker = self._breakers.get(name)
            if breaker is None:
                breaker = self._breakers[name] = CircuitBreaker(
                    name,
                    self._store,
                    self._configs.get(name, self._default),
                    clock=self._clock,
                    listener=self._listener,
                    gate=self._gate,
                )
                if len(self._breakers) > self._max_breakers:
                    _, dropped = self._breakers.popitem(last=False)
            else:
                self._breakers.move_to_end(name)
        if dropped is not None and dropped.has_untold:
            dropped.flush()
        return breaker

    def configure(self, name: str, config: BreakerConfig) -> CircuitBreaker:
        """Give `name` a configuration of its own; calls already let through keep the former."""
        with self._lock:
            self._configs[name] = config
            self._breakers.pop(name, None)
        return self.get(name)

    def flush(self) -> None:
        """Tell the successes not yet told: one round trip for each breaker that has any. For shutdown."""
        with self._lock:
            breakers = list(self._breakers.values())
        for breaker in breakers:
            if breaker.has_untold:
                breaker.flush()

    # -- the specification's calls ---------------------------------------------------------------------

    def can_execute(self, operation_name: str) -> bool:
        """Whether `operation_name` may be called now."""
        return self.get(operation_name).can_execute()

    def record_success(self, operation_name: str) -> None:
        """Report that a call of `operation_name` went well."""
        self.get(operation_name).record_success()

    def record_failure(self, operation_name: str) -> None:
        """Report that a call of `operation_name` failed."""
        self.get(operation_name).record_failure()

    def get_status(self, operation_name: str | None = None) -> dict[str, Any]:
        """Return one breaker's status, or with None every breaker's by its name.

        Every breaker: those of this process, and those of others that ever had a transition. One round trip
        each. While Redis is away: those of this process, as their local breakers see them.
        """
        if operation_name is not None:
            return self.get(operation_name).get_status()
        return {name: self._status(name) for name in self.names()}

    def get_failure_count(self, operation_name: str) -> int:
        """Return the failures of `operation_name` in a row, or within the window."""
        return self.get(operation_name).get_failure_count()

    def get_threshold(self, operation_name: str) -> int:
        """Return how many failures in a row open the breaker of `operation_name`."""
        return self.get(operation_name).get_threshold()

    def manual_reset(
        self, operation_name: str, *, owner: str = "operator", reason: str = "manual reset"
    ) -> None:
        """Close the breaker of `operation_name` everywhere.

        Raises:
            ServiceUnavailableError: Redis is away; nothing was changed.
        """
        self.get(operation_name).manual_reset(owner=owner, reason=reason)

    # -- all of them -----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of this process's breakers and of those that had a transition anywhere, sorted."""
        with self._lock:
            known = set(self._breakers)
        try:
            known.update(self._store.names())
        except StoreAwayError as failure:
            logger.warning("redis does not answer (%s): only this process's breakers are listed", failure)
        return sorted(known)

    def transitions(
        self, cursors: Mapping[str, str], *, limit: int = 64
    ) -> Sequence[tuple[str, str, Transition]]:
        """Return transitions that anybody caused, as the scripts recorded them, for audit and metrics.

        A breaker's last 64 are kept for a day. One round trip for each breaker that had any.

        Args:
            cursors: by name, the last cursor already read; a name without one is read from its beginning.
            limit: how many of each breaker.

        Returns:
            Tuples of name, cursor and transition, each breaker's in order.

        Raises:
            ServiceUnavailableError: Redis is away.
        """
        try:
            return self._store.transitions(cursors, limit)
        except StoreAwayError as failure:
            raise ServiceUnavailableError(
                f"redis does not answer ({failure}): the breakers' transitions cannot be read",
                service_name="redis",
            ) from None

    def _status(self, name: str) -> dict[str, Any]:
        with self._lock:
            known = self._breakers.get(name)
        # Listing all must not drop those that are in use here.
        breaker = known or CircuitBreaker(
            name,
            self._store,
            self._configs.get(name, self._default),
            clock=self._clock,
            listener=self._listener,
            gate=self._gate,
        )
        return breaker.get_status()
