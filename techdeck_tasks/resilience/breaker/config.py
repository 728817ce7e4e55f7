"""How a circuit breaker counts, when it trips and how it recovers."""

from __future__ import annotations

import builtins
import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from techdeck_tasks.errors import TimeoutError, kind_of  # noqa: A004 - the specification's name

if TYPE_CHECKING:
    from techdeck_tasks.settings import Settings

BUCKETS = 10
"""Parts of the sliding window; an event leaves it between 90 % and 100 % of the window after it happened."""

_MAX_DRAIN_S = 30.0


class Counting(StrEnum):
    """What trips a closed breaker."""

    CONSECUTIVE = "consecutive"
    """So many failures in a row (the specification's)."""
    RATE = "rate"
    """The share of failures, or of slow calls, within a sliding window."""


class AwayPolicy(StrEnum):
    """Who answers while Redis is away."""

    LOCAL = "local"
    """A breaker of the same configuration in this process, which starts from what was last known."""
    ALLOW = "allow"
    """Every call goes through and nothing is counted."""
    DENY = "deny"
    """No call goes through until Redis is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """Tokens that all processes share, so that retries cannot multiply an outage (botocore's scheme).

    Attributes:
        capacity: tokens when full; a budget nobody has used is full.
        retry_cost: tokens of one retry.
        timeout_cost: tokens of a retry after a timeout: it has already cost the other side its work.
        refund: tokens that one success gives back.
        refill_per_s: tokens that come back each second by themselves.

    Raises:
        ValueError: a value is out of its bounds.
    """

    capacity: int = 500
    retry_cost: int = 5
    timeout_cost: int = 10
    refund: int = 1
    refill_per_s: float = 1.0

    def __post_init__(self) -> None:
        _at_least("capacity", self.capacity, 1)
        for name in ("retry_cost", "timeout_cost", "refund", "refill_per_s"):
            _at_least(name, getattr(self, name), 0)

    def cost_of(self, error: BaseException) -> int:
        """Return the tokens that a retry after `error` costs."""
        timeouts = (TimeoutError, builtins.TimeoutError)
        return self.timeout_cost if issubclass(kind_of(error), timeouts) else self.retry_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """The settings of one breaker; every process that uses its name should use the same.

    Attributes:
        counting: what trips it.
        failure_threshold: failures in a row that trip it (`Counting.CONSECUTIVE`).
        success_threshold: successful probes, of one half-open period, that close it.
        open_s: seconds the first open period lasts.
        open_growth: factor from one open period to the next while it keeps failing, >= 1.
        open_cap_s: the longest open period in seconds; also the longest that `open_for` can ask for.
        window_s: length of the sliding window in seconds (`Counting.RATE`).
        minimum_calls: calls within the window before a rate means anything.
        failure_rate: share of failures that trips it, above 0, at most 1.
        slow_call_s: a call that takes this many seconds is slow; None: none is.
        slow_rate: share of slow calls that trips it, above 0, at most 1.
        probes: calls that may probe at the same time while half-open.
        lease_s: seconds after which a probe that has not reported counts as dead. At least as long as the
            longest call, or the probe is renewed.
        drain_s: seconds after closing in which calls are paced; 0 for no pacing.
        drain_per_s: calls a second, over all processes, while paced; the first second's may come at once.
        away: who answers while Redis is away.
        ignored: exceptions that say nothing about the other side's health: they count as nothing.
        budget: the retry budget that goes with it.
        idle_s: seconds without any event after which Redis forgets the breaker; never while it is open,
            half-open or overridden.
        snapshot_s: how old, in seconds, the known state may be before a closed breaker asks Redis again.
        open_refresh_s: the same for an open one, so that an operator's reset or override is heard.

    Raises:
        ValueError: a value is out of its bounds.
    """

    counting: Counting = Counting.CONSECUTIVE
    failure_threshold: int = 5
    success_threshold: int = 2
    open_s: float = 60.0
    open_growth: float = 2.0
    open_cap_s: float = 3600.0
    window_s: float = 60.0
    minimum_calls: int = 20
    failure_rate: float = 0.5
    slow_call_s: float | None = None
    slow_rate: float = 1.0
    probes: int = 1
    lease_s: float = 30.0
    drain_s: float = 0.0
    drain_per_s: int = 10
    away: AwayPolicy = AwayPolicy.LOCAL
    ignored: tuple[type[BaseException], ...] = ()
    budget: RetryBudget = field(default_factory=RetryBudget)
    idle_s: float = 3600.0
    snapshot_s: float = 0.25
    open_refresh_s: float = 1.0
    numbers: dict[str, float] = field(init=False, repr=False, compare=False)
    """What decides transitions: whole milliseconds, thousandths of a token, the rest as it is."""
    wire: str = field(init=False, repr=False, compare=False)
    """The same as the scripts are told: JSON."""

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "success_threshold", "minimum_calls", "probes", "drain_per_s"):
            _at_least(name, getattr(self, name), 1)
        # Redis counts whole milliseconds.
        for name in ("open_s", "lease_s", "idle_s"):
            _at_least(name, getattr(self, name), 0.001)
        _at_least("window_s", self.window_s, BUCKETS / 1000)
        _at_least("open_growth", self.open_growth, 1)
        _at_least("open_cap_s", self.open_cap_s, self.open_s)
        for name in ("drain_s", "snapshot_s", "open_refresh_s"):
            _at_least(name, getattr(self, name), 0)
        for name in ("failure_rate", "slow_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use a share above 0 and at most 1")
        if self.slow_call_s is not None:
            _at_least("slow_call_s", self.slow_call_s, 0)
        if self.drain_per_s > 1000:  # noqa: PLR2004 - one a millisecond, the scripts' unit of time
            raise ValueError(f"drain_per_s is {self.drain_per_s}; use 1 to 1000, or drain_s=0 for no pacing")
        object.__setattr__(self, "numbers", self._numbers())
        object.__setattr__(self, "wire", json.dumps(self.numbers, separators=(",", ":")))

    @classmethod
    def from_settings(cls, settings: Settings, **changes: Any) -> Self:
        """Return the configuration `settings` describe, with `changes` to any attribute.

        A probe's lease lasts as long as a task may; after closing, calls are paced for a sixth of the open
        period (at most 30 s), so that parked tasks do not trip it again.
        """
        open_s = settings.circuit_breaker_timeout_seconds
        values: dict[str, Any] = {
            "failure_threshold": settings.circuit_breaker_failure_threshold,
            "success_threshold": settings.circuit_breaker_success_threshold,
            "open_s": open_s,
            "open_cap_s": max(open_s, 3600.0),
            "lease_s": float(settings.task_time_limit_seconds),
            "drain_s": min(open_s / 6, _MAX_DRAIN_S),
        }
        return cls(**(values | changes))

    def _numbers(self) -> dict[str, float]:
        return {
            "rated": int(self.counting is Counting.RATE),
            "failure_threshold": self.failure_threshold,
            "success_threshold": self.success_threshold,
            "open_ms": _ms(self.open_s),
            "growth": self.open_growth,
            "open_cap_ms": _ms(self.open_cap_s),
            "bucket_ms": max(1, _ms(self.window_s / BUCKETS)),
            "minimum_calls": self.minimum_calls,
            "failure_rate": self.failure_rate,
            "slow_rate": self.slow_rate,
            "probes": self.probes,
            "lease_ms": _ms(self.lease_s),
            "drain_ms": _ms(self.drain_s),
            "drain_step_ms": 1000 // self.drain_per_s,
            "drain_burst_ms": 1000 - 1000 // self.drain_per_s,
            "idle_ms": _ms(self.idle_s),
            "tokens": self.budget.capacity * 1000,
            "refund": self.budget.refund * 1000,
            "refill_per_s": self.budget.refill_per_s,
        }


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 0)


def _at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name} is {value}; use a finite number >= {least:g}")
