"""What a breaker keeps between calls, and how it asks its store: the view, the batch, life without Redis.

Thread-free and fork-safe. Kept are the last reply (`View`) and the successes not yet told (`Batch`); a forked
child starts without both, and neither is worth more than a snapshot's age.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.events import BreakerTransition, Listener
from techdeck_tasks.resilience.breaker.config import AwayPolicy, BreakerConfig
from techdeck_tasks.resilience.breaker.gate import StoreGate
from techdeck_tasks.resilience.breaker.memory_store import MemoryBreakerStore
from techdeck_tasks.resilience.breaker.redis_store import RedisBreakerStore, store_on
from techdeck_tasks.resilience.breaker.state import NOTHING, Batch, BreakerStore, Reply, StoreAwayError
from techdeck_tasks.resilience.breaker.view import UNKNOWN, Step, View, view_of
from techdeck_tasks.resilience.forking import when_forked

if TYPE_CHECKING:
    from collections.abc import Callable

    from techdeck_tasks.storage.redis_client import RedisClient

logger = logging.getLogger(__name__)

LONGEST_NAME = 200
_INDEX_REFRESH_S = 3600.0


def is_breaker_name(name: str) -> bool:
    """Whether a breaker may be called so.

    Its keys in Redis have the name in braces, log lines and pages show it; half of a surrogate pair cannot
    even be sent.
    """
    return 0 < len(name) <= LONGEST_NAME and name.isprintable() and not set(name) & set("{}")


class BreakerCore:
    """The store's side of `CircuitBreaker`; its arguments are described there."""

    def __init__(
        self,
        name: str,
        backend: RedisClient | BreakerStore,
        config: BreakerConfig | None = None,
        *,
        clock: Clock | None = None,
        listener: Listener | None = None,
        gate: StoreGate | None = None,
    ) -> None:
        if not is_breaker_name(name):
            raise ValueError(
                f"breaker name {name[:50]!r}: use 1 to {LONGEST_NAME} printable characters, no braces"
            )
        self.name = name
        self.config = config or BreakerConfig()
        self._clock = clock or SystemClock()
        # Bound once: the closed path reads the time twice a call.
        self._monotonic = time.monotonic if isinstance(self._clock, SystemClock) else self._clock.monotonic
        self._remote: BreakerStore = store_on(backend)
        self._listener = listener
        self._gate = gate or StoreGate()
        self.start_empty()
        when_forked(self)

    def start_empty(self) -> None:
        """Drop what was kept; run at the start and in a forked child.

        There a lock may be held by a thread that does not exist, and the batch is the parent's to tell.
        """
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        # Monotonic, so that a wall clock that steps back cannot prolong a local open period.
        self._local = MemoryBreakerStore(lambda: int(self._monotonic() * 1000), max_breakers=1)
        self._resumed = False
        self._indexed_at: float | None = None
        self._view: View = UNKNOWN
        self._ok = self._slow = 0
        self._last_ok = 0.0

    @property
    def has_untold(self) -> bool:
        """Whether successes wait to be told."""
        return bool(self._ok or self._slow)

    def flush(self) -> Reply | None:
        """Tell the successes not yet told and learn the state: one round trip.

        Returns None where the policy while Redis is away is not to have a state. Never raises.
        """
        batch = self._take_batch()
        return self._ask(lambda store: store.sync(self.name, self.config, batch))[0]

    def _take_batch(self) -> Batch:
        with self._lock:
            ok, slow, last_ok, epoch = self._ok, self._slow, self._last_ok, self._view.epoch
            self._ok = self._slow = 0
        if not ok and not slow:
            return NOTHING
        return Batch(epoch, ok, slow, max(int((self._monotonic() - last_ok) * 1000), 0))

    def _ask(self, operation: Callable[[BreakerStore], Reply]) -> tuple[Reply | None, BreakerStore | None]:
        """Ask Redis, or whoever answers in its place. Never raises."""
        reply = self._ask_store(self._remote, operation)
        if reply is not None:
            return reply, self._remote
        return self._answer_alone(operation)

    def _ask_store(
        self, store: BreakerStore | None, operation: Callable[[BreakerStore], Reply]
    ) -> Reply | None:
        """Ask this store and no other; None where it does not answer."""
        if store is None or (store is self._remote and not self._gate.admits(self._monotonic())):
            return None
        try:
            reply = operation(store)
        except StoreAwayError as failure:
            if self._gate.failed(self._monotonic()):
                logger.warning(
                    "redis does not answer (%s): until it does, breakers follow their policy %r",
                    failure,
                    self.config.away.value,
                )
            return None
        if store is self._remote:
            if self._gate.answered():
                logger.warning("redis answers again: breakers are shared again")
            self._resumed = False
        self._adopt(reply, store)
        return reply

    def _answer_alone(
        self, operation: Callable[[BreakerStore], Reply]
    ) -> tuple[Reply | None, BreakerStore | None]:
        now = self._monotonic()
        if self.config.away is not AwayPolicy.LOCAL:
            step = Step.FREE if self.config.away is AwayPolicy.ALLOW else Step.REJECT
            until = now + self._gate.retry_s
            self._view = View(step, until, Step.ASK, reject_until=until, at=now)
            return None, None
        with self._lock:
            last = self._view
            if not self._resumed and last.reply is not None and last.store is self._remote:
                # An open breaker stays open and an override stays in force while Redis is away.
                self._local.resume(self.name, last.reply.aged(int((now - last.at) * 1000)))
            self._resumed = True
        reply = operation(self._local)
        self._adopt(reply, self._local)
        return reply, self._local

    def _adopt(self, reply: Reply, store: BreakerStore) -> None:
        now = self._monotonic()
        with self._lock:
            view = self._view
            news = reply.epoch != view.epoch
            # Two threads' replies may arrive in the other order.
            overtaken = (
                view.store is store
                and view.reply is not None
                and reply.now_ms < view.reply.now_ms
                and now < view.until
            )
            if not overtaken:
                if news:
                    # Successes of another epoch count for nothing.
                    self._ok = self._slow = 0
                self._view = view_of(reply, store, self.config, now)
        for change in reply.transitions:
            logger.warning(
                "circuit breaker %s: %s -> %s (%s)", self.name, change.old, change.new, change.reason
            )
            self._tell_listener(
                BreakerTransition(
                    name=self.name,
                    old_state=change.old,
                    new_state=change.new,
                    epoch=change.epoch,
                    reason=change.reason,
                    # The local store's time is monotonic and means nothing to others.
                    occurred_at=self._clock.now() if store is self._local else change.occurred_at,
                    owner=change.owner or None,
                )
            )
        if reply.epoch and (news or reply.transitions) and isinstance(store, RedisBreakerStore):
            self._remember(store, reply, now)

    def _remember(self, store: RedisBreakerStore, reply: Reply, now: float) -> None:
        if self._indexed_at is not None and now < self._indexed_at + _INDEX_REFRESH_S:
            return
        self._indexed_at = now
        try:
            store.remember(self.name, reply.now_ms)
        except StoreAwayError:
            self._indexed_at = None

    def _tell_listener(self, event: BreakerTransition) -> None:
        if self._listener is None:
            return
        try:
            self._listener.on_event(event)
        except Exception:
            logger.exception("the listener of circuit breaker %s failed", self.name)
