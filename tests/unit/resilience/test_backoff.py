"""Whether to try again, and when."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from techdeck_tasks.resilience import Jitter, RetryPolicy, decide
from techdeck_tasks.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RNG = random.Random(1)


@dataclass(frozen=True)
class Verdict:
    retryable: bool = True
    retry_at: datetime | None = None


def decision(policy: RetryPolicy, attempt: int = 0, elapsed_s: float = 0, **more: Any) -> tuple[bool, str]:
    verdict = more.pop("verdict", Verdict())
    made = decide(policy, verdict, attempt=attempt, elapsed_s=elapsed_s, now=NOW, rng=RNG, **more)
    return made.retry, made.reason


def test_delays_grow_by_the_base() -> None:
    policy = RetryPolicy(delay_s=1, base=3, jitter=Jitter.NONE)
    assert [policy.delay_for(attempt, RNG) for attempt in range(4)] == [1, 3, 9, 27]


def test_a_power_that_no_float_holds_is_the_cap() -> None:
    assert RetryPolicy(jitter=Jitter.NONE, cap_s=600).delay_for(10_000, RNG) == 600
    assert RetryPolicy(jitter=Jitter.NONE, delay_s=0).delay_for(10_000, RNG) == 0.1


def test_no_delay_is_shorter_than_a_tenth_of_a_second() -> None:
    for jitter in Jitter:
        assert RetryPolicy(delay_s=0.001, jitter=jitter).delay_for(0, RNG) == 0.1


def test_delays_at_the_cap_are_still_spread() -> None:
    policy = RetryPolicy(cap_s=100)
    delays = [policy.delay_for(50, random.Random(seed)) for seed in range(50)]
    assert max(delays) <= 100
    assert len(set(delays)) == 50


@pytest.mark.parametrize(
    ("jitter", "least", "most"),
    [(Jitter.SPEC, 3.0, 5.0), (Jitter.FULL, 0.1, 4.0), (Jitter.EQUAL, 2.0, 4.0), (Jitter.NONE, 4.0, 4.0)],
)
def test_each_kind_of_jitter_has_its_range(jitter: Jitter, least: float, most: float) -> None:
    policy = RetryPolicy(jitter=jitter)
    delays = [policy.delay_for(2, random.Random(seed)) for seed in range(300)]
    assert least <= min(delays) <= least + 0.15
    assert most - 0.15 <= max(delays) <= most


def test_the_other_sides_moment_wins_and_is_clamped() -> None:
    policy = RetryPolicy(jitter=Jitter.NONE, retry_after_cap_s=120)
    assert policy.delay_for(0, RNG, retry_at=NOW + timedelta(seconds=42), now=NOW) == 42
    assert policy.delay_for(0, RNG, retry_at=NOW + timedelta(days=9), now=NOW) == 120
    assert policy.delay_for(0, RNG, retry_at=NOW - timedelta(seconds=1), now=NOW) == 1


def test_a_moment_needs_the_present_one() -> None:
    with pytest.raises(ValueError, match="now"):
        RetryPolicy().delay_for(0, RNG, retry_at=NOW)
    with pytest.raises(ValueError, match="from 0"):
        RetryPolicy().delay_for(-1, RNG)


def test_no_retries_means_none() -> None:
    assert decision(RetryPolicy(max_retries=0)) == (False, "attempts spent")
    assert RetryPolicy(max_retries=0).longest_countdown_s == 0


def test_each_refusal_has_its_reason() -> None:
    assert decision(RetryPolicy(max_retries=3), attempt=2) == (True, "")
    assert decision(RetryPolicy(max_retries=3), attempt=3) == (False, "attempts spent")
    assert decision(RetryPolicy(), verdict=Verdict(retryable=False)) == (False, "not retryable")
    assert decision(RetryPolicy(budget_s=60), elapsed_s=60) == (False, "time budget spent")
    assert decision(RetryPolicy(budget_s=None), elapsed_s=1e9) == (True, "")
    assert decision(RetryPolicy(), budget_allows=False) == (False, "retry budget empty")


def test_classes_can_be_added_to_and_taken_from_what_is_retried() -> None:
    policy = RetryPolicy(retry_on=(LookupError,), never_on=(IndexError,))
    unretryable = Verdict(retryable=False)
    assert decision(policy, verdict=unretryable, error=KeyError())[0]
    assert not decision(policy, verdict=unretryable, error=IndexError())[0]
    assert not decision(policy, error=IndexError())[0]


def test_a_condition_replaces_the_verdict_and_sees_attempt_and_context() -> None:
    seen = []

    def condition(error: BaseException, attempt: int, context: Mapping[str, Any]) -> bool:
        seen.append((type(error), attempt, context["who"]))
        return attempt == 0

    policy = RetryPolicy(should_retry=condition)
    unretryable = Verdict(retryable=False)
    assert decision(policy, verdict=unretryable, error=KeyError(), context={"who": "me"})[0]
    assert not decision(policy, 1, verdict=unretryable, error=KeyError(), context={"who": "me"})[0]
    assert seen == [(KeyError, 0, "me"), (KeyError, 1, "me")]


def test_a_condition_that_fails_does_not_replace_the_error() -> None:
    def condition(error: BaseException, attempt: int, context: Mapping[str, Any]) -> bool:
        raise RuntimeError

    assert decision(RetryPolicy(should_retry=condition), error=KeyError()) == (False, "not retryable")


def test_settings_give_the_policy_and_zero_replaces_a_setting() -> None:
    settings = Settings(default_max_retries=7, default_retry_delay_seconds=2, default_exponential_base=3)
    policy = RetryPolicy.from_settings(settings)
    assert (policy.max_retries, policy.delay_s, policy.base, policy.cap_s) == (7, 2, 3, 600)
    assert RetryPolicy.from_settings(settings, max_retries=0, delay_s=0).max_retries == 0


def test_the_longest_countdown_knows_retries_cap_and_retry_after() -> None:
    assert RetryPolicy(max_retries=3, retry_after_cap_s=1).longest_countdown_s == 5
    assert RetryPolicy(max_retries=30, retry_after_cap_s=1).longest_countdown_s == 600
    assert RetryPolicy(max_retries=1, retry_after_cap_s=900).longest_countdown_s == 900
    assert RetryPolicy(max_retries=1, budget_s=60).longest_countdown_s == 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": -1},
        {"max_retries": 1001},
        {"delay_s": -1},
        {"delay_s": float("nan")},
        {"base": 0.5},
        {"cap_s": 0},
        {"cap_s": float("inf")},
        {"budget_s": -1},
        {"retry_after_cap_s": 0},
        {"jitter": "much"},
    ],
)
def test_a_value_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"use|valid"):
        RetryPolicy(**wrong)
