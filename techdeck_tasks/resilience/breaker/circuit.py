"""The circuit breaker as a process uses it: the cached closed path, permits, and life without Redis.

Thread-free and fork-safe. What it keeps between calls is the last reply (`View`) and the successes not yet told
(`Batch`); both are dropped in a forked child, and neither is worth more than a snapshot's age.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from redis import Redis
from redis.cluster import RedisCluster

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.errors import CircuitBreakerError
from techdeck_tasks.errors.classification import is_control_flow
from techdeck_tasks.events import BreakerTransition, Listener
from techdeck_tasks.resilience.breaker.config import AwayPolicy, BreakerConfig
from techdeck_tasks.resilience.breaker.gate import StoreGate
from techdeck_tasks.resilience.breaker.memory_store import MemoryBreakerStore
from techdeck_tasks.resilience.breaker.permit import Kind, Permit
from techdeck_tasks.resilience.breaker.redis_store import RedisBreakerStore
from techdeck_tasks.resilience.breaker.state import (
    NOTHING,
    Batch,
    BreakerStore,
    Grant,
    ProbeOutcome,
    Reply,
    State,
    StoreAwayError,
)
from techdeck_tasks.resilience.breaker.view import UNKNOWN, Step, View, view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from techdeck_tasks.storage.redis_client import RedisClient

logger = logging.getLogger(__name__)

LONGEST_NAME = 200
_STALE_FACTOR = 4
_INDEX_REFRESH_S = 3600.0
_MAX_ROUNDS = 4
_MIN_RETRY_AFTER_S = 0.001

T = TypeVar("T")


class BreakerCore:
    """What `CircuitBreaker` is made of: asking the store, keeping the view, settling permits."""

    def __init__(
        self,
        name: str,
        backend: RedisClient | BreakerStore,
        config: BreakerConfig | None = None,
        *,
        clock: Clock | None = None,
        listener: Listener | None = None,
        gate: StoreGate | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not 0 < len(name) <= LONGEST_NAME or "{" in name or "}" in name:
            raise ValueError(f"breaker name {name[:50]!r}: use 1 to {LONGEST_NAME} characters, no braces")
        self.name = name
        self.config = config or BreakerConfig()
        self.shadow_rejections = 0
        """Calls of this process that went through only because of a shadow override."""
        self._clock = clock or SystemClock()
        # Bound once: the closed path reads the time twice a call.
        self._monotonic = time.monotonic if isinstance(self._clock, SystemClock) else self._clock.monotonic
        self._remote: BreakerStore = (
            RedisBreakerStore(backend) if isinstance(backend, (Redis, RedisCluster)) else backend
        )
        self._listener = listener
        self._gate = gate or StoreGate()
        self._rng = rng or random.Random()  # noqa: S311 - spreads waiting calls; no secret
        self._slow_call_s = self.config.slow_call_s
        self._start_empty()
        _breakers.add(self)

    def _start_empty(self) -> None:
        # Also run in a forked child: a lock may be held there by a thread that does not exist, the batch is
        # the parent's to tell, and the pooled view would go unrefreshed.
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._local = MemoryBreakerStore(self._local_ms, max_breakers=1)
        self._resumed = False
        self._indexed_at: float | None = None
        self._view: View = UNKNOWN
        self._ok = self._slow = 0
        self._last_ok = 0.0

    def _local_ms(self) -> int:
        # Monotonic, so that a wall clock that steps back cannot prolong a local open period.
        return int(self._monotonic() * 1000)

    # -- letting through -------------------------------------------------------------------------------

    def _permit_at(self, now: float, permit_id: str | None) -> Permit | None:
        """Return what the view allows without asking the store; None where it must be asked.

        Raises:
            CircuitBreakerError: the view rejects.
        """
        view = self._view
        step = view.step if now < view.until else view.then
        if step is Step.PASS:
            return Permit(self, view.epoch, now, permit_id=permit_id or "")
        if step is Step.FREE:
            if view.reply is not None and view.reply.effective is State.SHADOW:
                self.shadow_rejections += 1
            return Permit(self, view.epoch, now, kind=Kind.FREE, permit_id=permit_id or "")
        if step is Step.REJECT:
            raise self._rejection(view, now)
        return None

    def _permit_by_asking(self, permit_id: str | None) -> Permit:
        for _ in range(_MAX_ROUNDS):
            now = self._monotonic()
            if self._view.step_at(now) is Step.LEASE:
                permit = self._lease(permit_id or f"{os.getpid()}-{uuid.uuid4().hex}")
                if permit is not None:
                    return permit
            else:
                self._refresh(now)
            permit = self._permit_at(self._monotonic(), permit_id)
            if permit is not None:
                return permit
        # The state changed with each answer; whoever cannot get a clear one waits.
        raise self._rejection(self._view, self._monotonic())

    def _lease(self, permit_id: str) -> Permit | None:
        reply, store = self._ask(lambda store: store.lease(self.name, self.config, permit_id))
        if reply is None or store is None or reply.grant is Grant.DENIED:
            return None
        kind = Kind.PROBE if reply.grant is Grant.PROBE else Kind.ORDINARY
        if reply.effective is State.DISABLED:
            kind = Kind.FREE
        return Permit(self, reply.epoch, self._monotonic(), kind=kind, permit_id=permit_id, store=store)

    def _refresh(self, now: float) -> None:
        """Tell the batch and learn the state, once for all threads that want to know."""
        view = self._view
        tolerable = view.step is Step.PASS and now < view.at + _STALE_FACTOR * self.config.snapshot_s
        if not self._asking.acquire(blocking=not tolerable):
            # Another thread is asking; a slightly older view is good enough for this call.
            self._view = _prolonged(view, now)
            return
        try:
            if self._view is view:
                self._sync()
        finally:
            self._asking.release()

    def _sync(self) -> Reply | None:
        batch = self._take_batch()
        return self._ask(lambda store: store.sync(self.name, self.config, batch))[0]

    def _rejection(self, view: View, now: float) -> CircuitBreakerError:
        wait_s = max(view.reject_until - now, _MIN_RETRY_AFTER_S)
        reply = view.reply
        if reply is not None and reply.drain_left_ms:
            # Those who wait come back one by one and not together.
            wait_s = max(self._rng.uniform(0.0, wait_s), reply.wait_ms / 1000)
        state = reply.effective.value if reply is not None else "unreachable"
        return CircuitBreakerError(
            f"circuit breaker {self.name} is {state}; the call was not made",
            service_name=self.name,
            failure_count=reply.failures if reply is not None else 0,
            threshold=self.config.failure_threshold,
            retry_after=wait_s,
        )

    # -- settling --------------------------------------------------------------------------------------

    def settle_success(self, permit: Permit, duration_s: float | None) -> None:
        """Take note of a success; a round trip only where it ends a row of failures, is slow, or a probe."""
        if self._count_success(permit, duration_s):
            self._tell_success(permit, duration_s)

    def _count_success(self, permit: Permit, duration_s: float | None) -> bool:
        """Count a success in the batch; True where the store must hear of it at once."""
        if permit.kind is not Kind.ORDINARY:
            return permit.kind is Kind.PROBE
        view = self._view
        if permit.epoch != view.epoch:
            return False
        now = self._monotonic()
        slow = self._is_slow(permit, duration_s, now)
        with self._lock:
            if slow:
                self._slow += 1
            else:
                self._ok += 1
            self._last_ok = now
        return slow or view.streak

    def _tell_success(self, permit: Permit, duration_s: float | None) -> None:
        if permit.kind is Kind.PROBE:
            slow = self._is_slow(permit, duration_s, self._monotonic())
            self._settle(permit, ProbeOutcome.SLOW if slow else ProbeOutcome.OK, 0)
        else:
            self._sync()

    def settle_failure(self, permit: Permit, cost: int) -> bool:
        """Take note of a failure: one round trip. Whether the retry budget paid `cost`."""
        if permit.kind is Kind.PROBE:
            reply = self._settle(permit, ProbeOutcome.FAILED, cost)
        elif permit.kind is Kind.FREE and not cost:
            return True
        else:
            # A free permit's epoch is none: the failure counts for nothing, the retry is paid for.
            epoch = permit.epoch if permit.kind is Kind.ORDINARY else -1
            batch = self._take_batch()
            reply = self._ask(
                lambda store: store.fail(self.name, self.config, batch, epoch=epoch, cost=cost)
            )[0]
        return reply.retry_allowed if reply is not None else True

    def settle_ignored(self, permit: Permit) -> None:
        """Free the lease of a probe; nothing for any other permit."""
        if permit.kind is Kind.PROBE:
            self._settle(permit, ProbeOutcome.IGNORED, 0)

    async def in_thread_success(self, permit: Permit, duration_s: float | None) -> None:
        """As `settle_success`; only a round trip goes to a thread."""
        if self._count_success(permit, duration_s):
            await asyncio.to_thread(self._tell_success, permit, duration_s)

    async def in_thread_failure(self, permit: Permit, cost: int) -> bool:
        """As `settle_failure`, in a thread."""
        return await asyncio.to_thread(self.settle_failure, permit, cost)

    async def in_thread_ignored(self, permit: Permit) -> None:
        """As `settle_ignored`; only a round trip goes to a thread."""
        if permit.kind is Kind.PROBE:
            await asyncio.to_thread(self.settle_ignored, permit)

    def renew(self, permit: Permit) -> bool:
        """Prolong the lease of a probe; False where it is no longer held."""
        if permit.kind is not Kind.PROBE:
            return True
        if permit.settled:
            return False
        reply, _ = self._ask_store(
            permit.store, lambda store: store.lease(self.name, self.config, permit.id)
        )
        return reply is not None and reply.grant is Grant.PROBE and reply.epoch == permit.epoch

    def is_ignored(self, error: BaseException) -> bool:
        """Whether `error` says nothing about the other side's health.

        Besides `BreakerConfig.ignored` these are exits and cancellation, Celery's control flow, and another
        breaker's rejection: no call was made.
        """
        return (
            not isinstance(error, Exception)
            or isinstance(error, (CircuitBreakerError, *self.config.ignored))
            or is_control_flow(error)
        )

    def _is_slow(self, permit: Permit, duration_s: float | None, now: float) -> bool:
        if self._slow_call_s is None:
            return False
        return (now - permit.started if duration_s is None else duration_s) >= self._slow_call_s

    def _settle(self, permit: Permit, outcome: ProbeOutcome, cost: int) -> Reply | None:
        return self._ask_store(
            permit.store,
            lambda store: store.settle(
                self.name, self.config, epoch=permit.epoch, permit_id=permit.id, outcome=outcome, cost=cost
            ),
        )[0]

    def _take_batch(self) -> Batch:
        with self._lock:
            ok, slow, last_ok = self._ok, self._slow, self._last_ok
            self._ok = self._slow = 0
        if not ok and not slow:
            return NOTHING
        return Batch(self._view.epoch, ok, slow, max(int((self._monotonic() - last_ok) * 1000), 0))

    # -- asking ----------------------------------------------------------------------------------------

    def _ask(self, operation: Callable[[BreakerStore], Reply]) -> tuple[Reply | None, BreakerStore | None]:
        """Ask Redis, or whoever answers in its place. Never raises."""
        now = self._monotonic()
        if self._gate.admits(now):
            reply, store = self._ask_store(self._remote, operation)
            if reply is not None:
                return reply, store
        return self._answer_alone(operation)

    def _ask_store(
        self, store: BreakerStore | None, operation: Callable[[BreakerStore], Reply]
    ) -> tuple[Reply | None, BreakerStore | None]:
        if store is None:
            return None, None
        try:
            reply = operation(store)
        except StoreAwayError as failure:
            if self._gate.failed(self._monotonic()):
                logger.warning(
                    "redis does not answer (%s): breakers follow their policy %r until it does",
                    failure,
                    self.config.away.value,
                )
            return None, None
        if store is self._remote:
            if self._gate.answered():
                logger.warning("redis answers again: breakers are shared again")
            self._resumed = False
        self._adopt(reply, store)
        return reply, store

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
            if not self._resumed:
                last = self._view
                if last.reply is not None and last.store is self._remote:
                    self._local.resume(self.name, last.reply.aged(int((now - last.at) * 1000)))
                self._resumed = True
        reply = operation(self._local)
        self._adopt(reply, self._local)
        return reply, self._local

    def _adopt(self, reply: Reply, store: BreakerStore) -> None:
        now = self._monotonic()
        with self._lock:
            view = self._view
            overtaken = (
                view.reply is not None
                and view.store is store
                and reply.now_ms < view.reply.now_ms
                and now < view.until
            )
            news = reply.epoch != view.epoch
            if not overtaken:
                if news:
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
        if store is self._remote and reply.epoch and (news or reply.transitions):
            self._remember(reply, now)

    def _remember(self, reply: Reply, now: float) -> None:
        if not isinstance(self._remote, RedisBreakerStore):
            return
        if self._indexed_at is not None and now < self._indexed_at + _INDEX_REFRESH_S:
            return
        self._indexed_at = now
        try:
            self._remote.remember(self.name, reply.now_ms)
        except StoreAwayError:
            self._indexed_at = None

    def _tell_listener(self, event: BreakerTransition) -> None:
        if self._listener is None:
            return
        try:
            self._listener.on_event(event)
        except Exception:
            logger.exception("the listener of circuit breaker %s failed", self.name)


def _prolonged(view: View, now: float) -> View:
    raise NotImplementedError


_breakers: weakref.WeakSet[BreakerCore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for breaker in list(_breakers):
        breaker._start_empty()


os.register_at_fork(after_in_child=_after_fork_in_child)
