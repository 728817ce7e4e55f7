"""The circuit breaker: the specification's calls, an operator's decisions, and its status."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from techdeck_tasks.errors import CircuitBreakerError, ServiceUnavailableError
from techdeck_tasks.resilience.breaker.calls import BreakerCalls
from techdeck_tasks.resilience.breaker.permit import Kind, Permit
from techdeck_tasks.resilience.breaker.state import OVERRIDES, Reply, State
from techdeck_tasks.resilience.breaker.status import status_of
from techdeck_tasks.resilience.breaker.view import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from techdeck_tasks.resilience.breaker.state import BreakerStore

_MAX_AMBIENT = 8

# Permits of `can_execute`, which returns a bool by specification: `record_success` finds its own again.
_ambient: ContextVar[tuple[Permit, ...]] = ContextVar("techdeck_breaker_permits", default=())


class CircuitBreaker(BreakerCalls):
    """A breaker shared by every process that uses the same name on the same Redis.

    A closed breaker lets a call through without a round trip while its view is younger than `snapshot_s`; an
    open one rejects without any until its deadline, but for one question each `open_refresh_s`. Neither a
    call's permit nor its report ever raises because of Redis: while it is away `BreakerConfig.away` decides.

    Failures count at once, successes with the next question: while several processes start at the same
    moment, a failure rate may for `snapshot_s` look higher than it is.

    Args:
        name: of the service or operation, 1 to 200 characters without braces.
        backend: a bounded client (`connect_redis`), or any `BreakerStore`.
        config: when it trips and how it recovers.
        clock: where the time comes from; only its monotonic readings decide anything.
        listener: hears of the transitions that this very breaker object caused.
        gate: shared by breakers of one client, so that one timeout tells them all that Redis is away.
        rng: spreads those who wait for a paced breaker.

    Raises:
        ValueError: the name is malformed.
    """

    def start_empty(self) -> None:
        """Drop what was kept; run at the start and in a forked child."""
        super().start_empty()
        self._loose: dict[str, Permit] = {}

    # -- the specification's calls ---------------------------------------------------------------------

    def can_execute(self) -> bool:
        """Whether a call may be made now; to be followed by `record_success` or `record_failure`.

        While half-open it takes a lease, which the report that follows in the same context ends.
        """
        now = self._monotonic()
        view = self._view
        if view.step is Step.PASS and now < view.until:
            _ambient.set((Permit(self, view.epoch, now), *_ambient.get()[: _MAX_AMBIENT - 1]))
            return True
        offer = self._offer(None)
        permit = offer if isinstance(offer, Permit) else None
        if permit is None and offer is not Step.REJECT:
            permit = self._obtain(None)
        return self._keep(permit)

    async def can_execute_async(self) -> bool:
        """As `can_execute`; a round trip goes to a thread."""
        try:
            permit = await self.acquire_async()
        except CircuitBreakerError:
            return False
        return self._keep(permit)

    def record_success(self, duration_s: float | None = None) -> None:
        """Report that the call went well; it took `duration_s` seconds, or None for unknown."""
        self._recall().success(duration_s)

    async def record_success_async(self, duration_s: float | None = None) -> None:
        """As `record_success`; a round trip goes to a thread."""
        await self._recall().success_async(duration_s)

    def record_failure(self, *, cost: int = 0) -> bool:
        """Report that the call failed; whether the retry budget paid `cost` tokens."""
        return self._recall().failure(cost=cost)

    async def record_failure_async(self, *, cost: int = 0) -> bool:
        """As `record_failure`; the round trip goes to a thread."""
        return await self._recall().failure_async(cost=cost)

    def _keep(self, permit: Permit | None) -> bool:
        if permit is None:
            return False
        _ambient.set((permit, *_ambient.get()[: _MAX_AMBIENT - 1]))
        if permit.kind is Kind.PROBE:
            while len(self._loose) >= self.config.probes:
                self._loose.pop(next(iter(self._loose)), None)
            self._loose[permit.id] = permit
        return True

    def _recall(self) -> Permit:
        """Return the permit that `can_execute` gave in this context, else one that fits the present state."""
        kept = _ambient.get()
        for position, permit in enumerate(kept):
            if permit.recorder is self and not permit.settled:
                _ambient.set(kept[:position] + kept[position + 1 :])
                return permit
        if self._view.step_at(self._monotonic()) is Step.ASK:
            self._refresh()
        view = self._view
        if view.reply is not None and view.reply.state is State.HALF_OPEN and self._loose:
            # Asked in one context, reported from another: any unreported probe of ours will do.
            return self._loose.pop(next(iter(self._loose)))
        return Permit(self, view.epoch, self._monotonic())

    # -- an operator's decisions -----------------------------------------------------------------------

    def manual_reset(self, *, owner: str = "operator", reason: str = "manual reset") -> None:
        """Close the breaker everywhere and forget its counts; an override stays.

        Raises:
            ServiceUnavailableError: Redis is away; nothing was changed.
        """
        self._decide(lambda store: store.reset(self.name, self.config, owner=owner, reason=reason))

    def force(self, state: State, *, owner: str, reason: str, ttl: timedelta | None = None) -> None:
        """Override the breaker everywhere; it survives every transition.

        Args:
            state: forced-open, disabled or shadow.
            owner: who decides.
            reason: why.
            ttl: for how long; None: until it is cleared.

        Raises:
            ValueError: `state` is no override, `ttl` is not positive, or owner or reason is empty.
            ServiceUnavailableError: Redis is away; nothing was changed.
        """
        if state not in OVERRIDES:
            raise ValueError(f"{state} is no override; use one of {', '.join(sorted(OVERRIDES))}")
        if not owner or not reason:
            raise ValueError("an override needs an owner and a reason")
        ttl_ms = 0 if ttl is None else round(ttl.total_seconds() * 1000)
        if ttl is not None and ttl_ms <= 0:
            raise ValueError(f"ttl is {ttl}; use a positive duration, or None for no end")
        self._decide(
            lambda store: store.override(
                self.name, self.config, state, ttl_ms=ttl_ms, owner=owner, reason=reason
            )
        )

    def clear_override(self, *, owner: str, reason: str) -> None:
        """End an override; the breaker goes on from the state below it.

        Raises:
            ServiceUnavailableError: Redis is away; nothing was changed.
        """
        self._decide(lambda store: store.clear(self.name, self.config, owner=owner, reason=reason))

    def open_for(self, duration: timedelta | float, *, reason: str = "retry-after") -> None:
        """Open the breaker for `duration` (a float is seconds), because the other side asked for it.

        At most `open_cap_s`; an open breaker is only prolonged. Never raises because of Redis: while it is
        away the local breaker opens.
        """
        seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
        hold_ms = round(min(max(seconds, 0.0), self.config.open_cap_s) * 1000)
        if hold_ms:
            self._ask(lambda store: store.hold(self.name, self.config, hold_ms=hold_ms, reason=reason))

    def _decide(self, operation: Callable[[BreakerStore], Reply]) -> None:
        if self._ask_store(self._remote, operation) is None:
            raise ServiceUnavailableError(
                f"redis does not answer: breaker {self.name} was not changed; try again",
                service_name="redis",
            )

    # -- status ----------------------------------------------------------------------------------------

    def get_status(self) -> dict[str, Any]:
        """Return the specification's keys and more, JSON-safe; one round trip, as `status.status_of` says."""
        reply = self.flush()
        status = status_of(self.name, self.config, reply)
        status["source"] = "redis" if self._view.store is self._remote else "local"
        status["shadow_rejections"] = self.shadow_rejections
        return status

    def get_failure_count(self) -> int:
        """Return the failures in a row, or within the window; one round trip."""
        reply = self.flush()
        return 0 if reply is None else reply.failures

    def get_threshold(self) -> int:
        """Return how many failures in a row trip it."""
        return self.config.failure_threshold
