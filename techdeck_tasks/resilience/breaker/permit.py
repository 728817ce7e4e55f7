"""The right to make one call, and the duty to say what became of it."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from techdeck_tasks.resilience.breaker.state import BreakerStore


class Kind(Enum):
    """What a permit's result means."""

    ORDINARY = auto()
    """It counts in the epoch in which the call was let through."""
    PROBE = auto()
    """It holds a lease and decides over a half-open breaker."""
    FREE = auto()
    """It counts for nothing."""


class Recorder(Protocol):
    """Who takes a permit's result: the breaker."""

    def settle_success(self, permit: Permit, duration_s: float | None) -> None:
        """Take note of a success."""

    def settle_failure(self, permit: Permit, cost: int) -> bool:
        """Take note of a failure; whether the retry budget paid `cost`."""

    def settle_ignored(self, permit: Permit) -> None:
        """Free what the permit holds."""

    async def settle_success_async(self, permit: Permit, duration_s: float | None) -> None:
        """Take note of a success without blocking the event loop."""

    async def settle_failure_async(self, permit: Permit, cost: int) -> bool:
        """Take note of a failure without blocking the event loop."""

    async def settle_ignored_async(self, permit: Permit) -> None:
        """Free what the permit holds without blocking the event loop."""

    def renew(self, permit: Permit) -> bool:
        """Prolong the permit's lease."""

    def is_ignored(self, error: BaseException) -> bool:
        """Whether `error` says nothing about the other side's health."""


class Permit:
    """One call that a breaker let through. Report its result once; later reports change nothing.

    As a context manager (sync or async) it reports by itself: no exception is a success, an ignored one frees
    the lease, any other is a failure. A permit that is never settled costs nothing in a closed breaker, and
    delays a half-open one until its lease ends. No method raises, whatever Redis does.

    Attributes:
        epoch: the breaker's period in which the call was let through.
        id: unique to the call; the lease's name.
        recorder: the breaker that gave it.
    """

    __slots__ = ("epoch", "id", "kind", "recorder", "settled", "started", "store")

    def __init__(
        self,
        recorder: Recorder,
        epoch: int,
        started: float,
        *,
        kind: Kind = Kind.ORDINARY,
        permit_id: str = "",
        store: BreakerStore | None = None,
    ) -> None:
        self.recorder = recorder
        self.epoch = epoch
        self.started = started
        self.kind = kind
        self.id = permit_id
        self.store = store
        self.settled = False

    def success(self, duration_s: float | None = None) -> None:
        """Report a success that took `duration_s` seconds; None: since the permit was given."""
        if not self.settled:
            self.settled = True
            self.recorder.settle_success(self, duration_s)

    def failure(self, *, cost: int = 0) -> bool:
        """Report a failure.

        Args:
            cost: tokens that the retry which is wanted costs (`RetryBudget.cost_of`); 0: none is wanted.

        Returns:
            Whether the retry budget paid; True where `cost` is 0.
        """
        if self.settled:
            return True
        self.settled = True
        return self.recorder.settle_failure(self, cost)

    def release(self) -> None:
        """Report nothing, and free the lease: the call was ignored, rejected, revoked or parked."""
        if not self.settled:
            self.settled = True
            self.recorder.settle_ignored(self)

    def renew(self) -> bool:
        """Prolong a probe's lease from now; False where it is no longer ours. True for any other permit."""
        return self.recorder.renew(self)

    async def success_async(self, duration_s: float | None = None) -> None:
        """As `success`; what must ask Redis is done in a thread."""
        if not self.settled:
            self.settled = True
            await self.recorder.settle_success_async(self, duration_s)

    async def failure_async(self, *, cost: int = 0) -> bool:
        """As `failure`, in a thread."""
        if self.settled:
            return True
        self.settled = True
        return await self.recorder.settle_failure_async(self, cost)

    async def release_async(self) -> None:
        """As `release`, in a thread."""
        if not self.settled:
            self.settled = True
            await self.recorder.settle_ignored_async(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.success()
        elif self.recorder.is_ignored(error):
            self.release()
        else:
            self.failure()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.success_async()
        elif self.recorder.is_ignored(error):
            await self.release_async()
        else:
            await self.failure_async()
