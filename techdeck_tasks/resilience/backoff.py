"""Whether to try again, and when: pure decisions, no I/O and no clock of their own.

Attempts count from 0 everywhere: `attempt` is the one that has just failed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self

from techdeck_tasks.errors import kind_of
from techdeck_tasks.redaction.foreign import is_order, short_name

if TYPE_CHECKING:
    import random
    from datetime import datetime

    from techdeck_tasks.settings import Settings

logger = logging.getLogger(__name__)

MIN_DELAY_S = 0.1
"""No delay is shorter, whatever the jitter says (the specification's floor)."""

MAX_RETRIES_LIMIT = 1000
"""More attempts than this are a loop, not a policy; the same bound as the setting's."""

_SPEC_JITTER = 0.25
_RETRY_AFTER_SPREAD = 0.1

RetryCondition = Callable[[BaseException, int, Mapping[str, Any]], bool]
"""``should_retry(error, attempt, context)``: the conditional form of a policy."""


class Jitter(StrEnum):
    """How a delay is spread, so that those who failed together do not return together.

    "Decorrelated" jitter is left out on purpose: it needs the previous delay, which a re-queued message
    does not carry.
    """

    SPEC = "spec"
    """The specification's: anywhere within 25 % of the nominal delay."""
    FULL = "full"
    """Anywhere between nothing and the nominal delay: spreads best, may be short."""
    EQUAL = "equal"
    """Half of the nominal delay, and anything up to the other half."""
    NONE = "none"
    """Exactly the nominal delay."""


class Refusal(StrEnum):
    """Why there is no further attempt."""

    NOT_RETRYABLE = "not retryable"
    ATTEMPTS_SPENT = "attempts spent"
    TIME_SPENT = "time budget spent"
    RETRY_BUDGET_EMPTY = "retry budget empty"
    EXPIRES = "it expires before another"


class Verdict(Protocol):
    """What a classification says of an error; `errors.classification` gives it."""

    @property
    def retryable(self) -> bool:
        """Whether an error of this kind may pass by itself."""

    @property
    def retry_at(self) -> datetime | None:
        """The moment (aware) before which the other side asked not to be tried again."""


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What to do after a failure.

    Attributes:
        retry: whether to try again.
        delay_s: how long to wait first, in seconds; 0 where `retry` is False.
        reason: why not, one of `Refusal`; empty where `retry` is True.
    """

    retry: bool
    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently something is tried again.

    The nominal delay after attempt ``n`` is ``delay_s * base ** n``, never above `cap_s`.

    Attributes:
        max_retries: further attempts after the first, 0 (none) to 1000.
        delay_s: the first nominal delay in seconds, >= 0.
        base: the factor from one delay to the next, >= 1.
        cap_s: the longest delay in seconds, >= 0.1; no jitter exceeds it.
        jitter: how a delay is spread.
        budget_s: no retry starts later than this many seconds after the first attempt; None for no bound.
        retry_after_cap_s: the longest wait in seconds that a retry-after or reset time can ask for.
        retry_on: classes that are retried whatever their classification says.
        never_on: classes that are never retried; wins over everything else.
        should_retry: replaces the classification's verdict: ``should_retry(error, attempt, context)``.

    Raises:
        ValueError: a value is out of its bounds.
    """

    max_retries: int = 3
    delay_s: float = 1.0
    base: float = 2.0
    cap_s: float = 600.0
    jitter: Jitter = Jitter.SPEC
    budget_s: float | None = 3600.0
    retry_after_cap_s: float = 3600.0
    retry_on: tuple[type[BaseException], ...] = ()
    never_on: tuple[type[BaseException], ...] = ()
    should_retry: RetryCondition | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= MAX_RETRIES_LIMIT:
            raise ValueError(f"max_retries is {self.max_retries}; use 0 (never) to {MAX_RETRIES_LIMIT}")
        _within("delay_s", self.delay_s, least=0.0)
        _within("base", self.base, least=1.0)
        _within("cap_s", self.cap_s, least=MIN_DELAY_S)
        _within("retry_after_cap_s", self.retry_after_cap_s, least=MIN_DELAY_S)
        if self.budget_s is not None:
            _within("budget_s", self.budget_s, least=0.0)
        Jitter(self.jitter)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        max_retries: int | None = None,
        delay_s: float | None = None,
        base: float | None = None,
        should_retry: RetryCondition | None = None,
    ) -> Self:
        """Return the policy of `settings`; an argument that is not None (0 counts) replaces its setting."""
        return cls(
            max_retries=settings.default_max_retries if max_retries is None else max_retries,
            delay_s=settings.default_retry_delay_seconds if delay_s is None else delay_s,
            base=settings.default_exponential_base if base is None else base,
            cap_s=max(settings.default_retry_cap_seconds, MIN_DELAY_S),
            budget_s=settings.default_retry_budget_seconds,
            retry_after_cap_s=max(settings.default_retry_budget_seconds, MIN_DELAY_S),
            should_retry=should_retry,
        )

    @property
    def longest_countdown_s(self) -> float:
        """The longest delay in seconds this policy can ever ask for; 0 where it never retries.

        A broker that hands out unfinished work again after a visibility timeout runs a task twice if a
        countdown is longer: such a policy is to be refused when it is configured.
        """
        if self.max_retries == 0:
            return 0.0
        longest = max(self._nominal_s(self.max_retries - 1) * (1 + _SPEC_JITTER), MIN_DELAY_S)
        longest = max(min(longest, self.cap_s), self.retry_after_cap_s)
        return longest if self.budget_s is None else min(longest, self.budget_s)

    def delay_for(
        self,
        attempt: int,
        rng: random.Random,
        *,
        retry_at: datetime | None = None,
        now: datetime | None = None,
    ) -> float:
        """Return how many seconds to wait after `attempt` failed: at least 0.1, at most `cap_s`.

        Args:
            attempt: which attempt failed, from 0.
            rng: where the jitter comes from.
            retry_at: the moment (aware) the other side named. If it is still to come it replaces the backoff,
                up to `retry_after_cap_s`, and is spread by at most 10 % and only towards later: earlier
                would be refused again.
            now: the present moment (aware); needed with `retry_at`.

        Raises:
            ValueError: `attempt` is negative, or `retry_at` comes without `now`.
        """
        if attempt < 0:
            raise ValueError(f"attempt is {attempt}; attempts count from 0")
        if retry_at is not None:
            if now is None:
                raise ValueError("retry_at needs now: pass the clock's time")
            asked_s = (retry_at - now).total_seconds()
            if asked_s > 0:
                spread = 0.0 if self.jitter is Jitter.NONE else rng.uniform(0.0, _RETRY_AFTER_SPREAD)
                return min(max(asked_s * (1 + spread), MIN_DELAY_S), self.retry_after_cap_s)
        return max(MIN_DELAY_S, self._jittered_s(self._nominal_s(attempt), rng))

    def _nominal_s(self, attempt: int) -> float:
        try:
            # float() first: 2 ** 10000 as integers is a number of 3,000 digits.
            nominal = self.delay_s * float(self.base) ** attempt
        except OverflowError:
            return self.cap_s if self.delay_s > 0 else 0.0
        return min(nominal, self.cap_s)

    def _jittered_s(self, nominal_s: float, rng: random.Random) -> float:
        if self.jitter is Jitter.SPEC:
            # At the cap the range ends there instead of being clipped: clipping would send half of them
            # back at the same moment.
            longest = min(nominal_s * (1 + _SPEC_JITTER), self.cap_s)
            return rng.uniform(nominal_s * (1 - _SPEC_JITTER), longest)
        if self.jitter is Jitter.FULL:
            return rng.uniform(0.0, nominal_s)
        if self.jitter is Jitter.EQUAL:
            return rng.uniform(nominal_s / 2, nominal_s)
        return nominal_s


def decide(
    policy: RetryPolicy,
    verdict: Verdict,
    *,
    attempt: int,
    elapsed_s: float,
    now: datetime,
    rng: random.Random,
    error: BaseException | None = None,
    context: Mapping[str, Any] | None = None,
    budget_allows: bool = True,
) -> RetryDecision:
    """Decide whether `attempt` is followed by another.

    Args:
        policy: how often and how patiently.
        verdict: the error's classification.
        attempt: which attempt failed, from 0.
        elapsed_s: seconds since the first attempt began.
        now: the present moment, aware.
        rng: where the jitter comes from.
        error: the error itself, for `retry_on`, `never_on` and `should_retry`.
        context: handed to `should_retry`.
        budget_allows: False where the retry budget shared with others is empty.
    """
    if not _is_retryable(policy, verdict, attempt, error, context or {}):
        return _refused(Refusal.NOT_RETRYABLE)
    if attempt >= policy.max_retries:
        return _refused(Refusal.ATTEMPTS_SPENT)
    delay_s = policy.delay_for(attempt, rng, retry_at=verdict.retry_at, now=now)
    if policy.budget_s is not None and elapsed_s + delay_s > policy.budget_s:
        return _refused(Refusal.TIME_SPENT)
    if not budget_allows:
        return _refused(Refusal.RETRY_BUDGET_EMPTY)
    return RetryDecision(retry=True, delay_s=delay_s, reason="")


def _is_retryable(
    policy: RetryPolicy,
    verdict: Verdict,
    attempt: int,
    error: BaseException | None,
    context: Mapping[str, Any],
) -> bool:
    if error is None:
        return verdict.retryable
    kind = kind_of(error)
    if issubclass(kind, policy.never_on):
        return False
    if policy.should_retry is not None:
        try:
            return bool(policy.should_retry(error, attempt, context))
        except BaseException as failure:
            # The caller's own code; it must not replace the first error.
            if is_order(failure):
                raise
            logger.warning("should_retry failed with %s; not retried", short_name(type(failure)))
            return False
    return verdict.retryable or issubclass(kind, policy.retry_on)


def _refused(reason: Refusal) -> RetryDecision:
    return RetryDecision(retry=False, delay_s=0.0, reason=reason.value)


def _within(name: str, value: float, *, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name} is {value}; use a finite number >= {least:g}")
