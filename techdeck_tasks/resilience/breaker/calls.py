"""Letting calls through and taking their results: permits, context manager, decorator, sync and async.

The async forms run the same code: what the view decides is decided in the event loop, and only a round trip
goes to a thread (at most ``redis_timeout_seconds`` long). A client of redis.asyncio would be bound to one
event loop, while a worker's tasks each run their own, and would double every path.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import random
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from techdeck_tasks.errors import CircuitBreakerError, is_control_flow, kind_of
from techdeck_tasks.redaction import sanitize_message
from techdeck_tasks.resilience.breaker.core import BreakerCore
from techdeck_tasks.resilience.breaker.permit import Kind, Permit
from techdeck_tasks.resilience.breaker.state import Grant, ProbeOutcome, Reply, State
from techdeck_tasks.resilience.breaker.view import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from techdeck_tasks.clock import Clock
    from techdeck_tasks.events import Listener
    from techdeck_tasks.resilience.breaker.config import BreakerConfig
    from techdeck_tasks.resilience.breaker.gate import StoreGate
    from techdeck_tasks.resilience.breaker.state import BreakerStore
    from techdeck_tasks.storage.redis_client import RedisClient

P = ParamSpec("P")
R = TypeVar("R")

_STALE_FACTOR = 4
_MAX_ROUNDS = 4
_MIN_RETRY_AFTER_S = 0.001


class BreakerCalls(BreakerCore):
    """The callers' side of `CircuitBreaker`; its arguments are described there."""

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
        super().__init__(name, backend, config, clock=clock, listener=listener, gate=gate)
        self.shadow_rejections = 0
        """Calls of this process that went through only because of a shadow override."""
        # The system's source: forked children must not draw the same numbers.
        self._rng = rng or random.SystemRandom()
        self._slow_call_s = self.config.slow_call_s
        self._safe_name = sanitize_message(name)

    # -- letting through -------------------------------------------------------------------------------

    def acquire(self, permit_id: str | None = None) -> Permit:
        """Return the permit for one call, to be settled or used as a context manager.

        Args:
            permit_id: unique to the call, such as task id and attempt; the same call asking again keeps its
                lease. None: one is made.

        Raises:
            CircuitBreakerError: the call must not be made; `retry_after` says when one may.
        """
        now = self._monotonic()
        view = self._view
        if view.step is Step.PASS and now < view.until:
            return Permit(self, view.epoch, now)
        permit = self._obtain(permit_id)
        if permit is None:
            raise self._rejection()
        return permit

    async def acquire_async(self, permit_id: str | None = None) -> Permit:
        """As `acquire`; use it as ``async with await breaker.acquire_async():``.

        Cancelled while it waits for Redis, it gives a lease back that it may still receive.
        """
        offer = self._offer(permit_id)
        if isinstance(offer, Permit):
            return offer
        if offer is Step.REJECT:
            raise self._rejection()
        asking = asyncio.get_running_loop().run_in_executor(None, self._obtain, permit_id)
        try:
            permit = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_give_back)
            raise
        if permit is None:
            raise self._rejection()
        return permit

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, sync or async: each call goes through the breaker.

        The call of a generator function, sync or async, lasts until its last item is taken; leaving it
        earlier counts as nothing. What an async one is sent does not reach it.
        """
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def guarded_items(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self.acquire():
                    return (yield from function(*args, **kwargs))

            return cast("Callable[P, R]", guarded_items)

        if inspect.isasyncgenfunction(function):
            items = cast("Callable[P, AsyncIterator[Any]]", function)

            @functools.wraps(function)
            async def guarded_async_items(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
                async with await self.acquire_async():
                    async for item in items(*args, **kwargs):
                        yield item

            return cast("Callable[P, R]", guarded_async_items)

        called = type(function).__call__
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
            asynchronous = cast("Callable[P, Awaitable[Any]]", function)

            @functools.wraps(function)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with await self.acquire_async():
                    return await asynchronous(*args, **kwargs)

            return cast("Callable[P, R]", guarded_async)

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            with self.acquire():
                return function(*args, **kwargs)

        return guarded

    def _offer(self, permit_id: str | None, *, asked: bool = False) -> Permit | Step:
        """Return the permit that the view allows, or what is to be done instead. No I/O.

        What was `asked` for this very call holds for it, be the snapshot's age 0.
        """
        now = self._monotonic()
        view = self._view
        step = view.step_at(view.at if asked else now)
        if step is Step.PASS:
            return Permit(self, view.epoch, now, permit_id=permit_id or "")
        if step is Step.FREE:
            if view.reply is not None and view.reply.effective is State.SHADOW:
                self.shadow_rejections += 1
            return Permit(self, view.epoch, now, kind=Kind.FREE, permit_id=permit_id or "")
        return step

    def _obtain(self, permit_id: str | None) -> Permit | None:
        """Return a permit, asking the store as often as needed; None where the call is rejected."""
        offer = self._offer(permit_id)
        for _ in range(_MAX_ROUNDS):
            if isinstance(offer, Permit):
                return offer
            if offer is Step.REJECT:
                return None
            if offer is Step.LEASE:
                permit = self._lease(permit_id or f"{os.getpid()}-{uuid.uuid4().hex}")
                if permit is not None:
                    return permit
            elif not self._refresh():
                # Another thread is asking; a slightly older view is good enough for this call.
                return Permit(self, self._view.epoch, self._monotonic(), permit_id=permit_id or "")
            offer = self._offer(permit_id, asked=True)
        # Still neither one nor the other: the state changed with each answer, because others are probing.
        return offer if isinstance(offer, Permit) else None

    def _lease(self, permit_id: str) -> Permit | None:
        reply, store = self._ask(lambda store: store.lease(self.name, self.config, permit_id))
        if reply is None or reply.grant is Grant.DENIED:
            return None
        kind = Kind.PROBE if reply.grant is Grant.PROBE else Kind.ORDINARY
        if reply.effective is State.DISABLED:
            kind = Kind.FREE
        return Permit(self, reply.epoch, self._monotonic(), kind=kind, permit_id=permit_id, store=store)

    def _refresh(self) -> bool:
        """Learn the state, once for all threads that want to know; False where another thread is at it."""
        view = self._view
        latest = view.at + _STALE_FACTOR * self.config.snapshot_s
        tolerable = view.step is Step.PASS and self._monotonic() < latest
        if not self._asking.acquire(blocking=not tolerable):
            return False
        try:
            if self._view is view:
                self.flush()
        finally:
            self._asking.release()
        return True

    def _rejection(self) -> CircuitBreakerError:
        view = self._view
        reply = view.reply
        wait_s = max(view.reject_until - self._monotonic(), _MIN_RETRY_AFTER_S)
        if reply is not None and reply.drain_left_ms:
            # Those who wait come back one by one and not together.
            wait_s = max(self._rng.uniform(0.0, wait_s), reply.wait_ms / 1000)
        state = "without Redis" if reply is None else reply.effective.value
        now = self._clock.now()
        # Built from its parts, which are safe by their making: redacting each anew would cost more than all
        # the rest, and rejections come in thousands.
        return CircuitBreakerError(
            {
                "error_id": str(uuid.uuid4()),
                "error_code": CircuitBreakerError.code,
                "message": f"circuit breaker {self._safe_name} is {state}; the call was not made",
                "details": {
                    "service_name": self._safe_name,
                    "failure_count": 0 if reply is None else reply.failures,
                    "threshold": self.config.failure_threshold,
                    "retry_after": (now + timedelta(seconds=wait_s)).isoformat(),
                },
                "recoverable": CircuitBreakerError.default_recoverable,
                "timestamp": now.isoformat(),
            }
        )

    # -- settling: what permits call -------------------------------------------------------------------

    def settle_success(self, permit: Permit, duration_s: float | None) -> None:
        """Take note of a success; a round trip only where it ends a row of failures, is slow, or a probe."""
        if self._count_success(permit, duration_s):
            self._tell_success(permit, duration_s)

    def settle_failure(self, permit: Permit, cost: int) -> bool:
        """Take note of a failure: one round trip. Whether the retry budget paid `cost`."""
        if permit.kind is Kind.PROBE:
            reply = self._settle(permit, ProbeOutcome.FAILED, cost)
        elif permit.kind is Kind.FREE and not cost:
            return True
        else:
            # A free permit has no epoch: its failure counts for nothing, but a retry is paid for.
            epoch = permit.epoch if permit.kind is Kind.ORDINARY else -1
            batch = self._take_batch()
            reply, _ = self._ask(
                lambda store: store.fail(self.name, self.config, batch, epoch=epoch, cost=cost)
            )
        return True if reply is None else reply.retry_allowed

    def settle_ignored(self, permit: Permit) -> None:
        """Free the lease of a probe; nothing for any other permit."""
        if permit.kind is Kind.PROBE:
            self._settle(permit, ProbeOutcome.IGNORED, 0)

    async def settle_success_async(self, permit: Permit, duration_s: float | None) -> None:
        """As `settle_success`; only a round trip goes to a thread."""
        if self._count_success(permit, duration_s):
            await asyncio.to_thread(self._tell_success, permit, duration_s)

    async def settle_failure_async(self, permit: Permit, cost: int) -> bool:
        """As `settle_failure`, in a thread."""
        return await asyncio.to_thread(self.settle_failure, permit, cost)

    async def settle_ignored_async(self, permit: Permit) -> None:
        """As `settle_ignored`; only a round trip goes to a thread."""
        if permit.kind is Kind.PROBE:
            await asyncio.to_thread(self.settle_ignored, permit)

    def renew(self, permit: Permit) -> bool:
        """Prolong the lease of a probe; False where it is no longer held."""
        if permit.kind is not Kind.PROBE:
            return True
        if permit.settled:
            return False
        reply = self._ask_store(permit.store, lambda store: store.lease(self.name, self.config, permit.id))
        if reply is None or reply.grant is not Grant.PROBE:
            return False
        if reply.epoch != permit.epoch:
            # The lease of a later epoch was given to a call that began in an earlier one.
            later = Permit(
                self, reply.epoch, permit.started, kind=Kind.PROBE, permit_id=permit.id, store=permit.store
            )
            later.release()
            return False
        return True

    def is_ignored(self, error: BaseException) -> bool:
        """Whether `error` says nothing about the other side's health.

        Besides `BreakerConfig.ignored` these are exits and cancellation, Celery's control flow, and another
        breaker's rejection: no call was made.
        """
        kind = kind_of(error)
        return (
            not issubclass(kind, Exception)
            or issubclass(kind, (CircuitBreakerError, *self.config.ignored))
            or is_control_flow(error)
        )

    def _count_success(self, permit: Permit, duration_s: float | None) -> bool:
        """Count a success in the batch; True where the store must hear of it at once."""
        if permit.kind is not Kind.ORDINARY:
            return permit.kind is Kind.PROBE
        now = self._monotonic()
        slow = self._slow_call_s is not None and self._is_slow(permit, duration_s, now)
        with self._lock:
            view = self._view
            if permit.epoch != view.epoch:
                return False
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
            self.flush()

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
        )


def _give_back(asking: asyncio.Future[Permit | None]) -> None:
    if asking.cancelled() or asking.exception() is not None:
        return
    permit = asking.result()
    if permit is not None:
        asyncio.get_running_loop().run_in_executor(None, permit.release)
