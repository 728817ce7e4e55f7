"""What holds of every delay and every decision."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.resilience.backoff import MIN_DELAY_S, Jitter, Refusal, RetryPolicy, decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)

policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 1000),
    delay_s=st.floats(0, 1e6),
    base=st.floats(1, 10),
    cap_s=st.floats(0.1, 1e6),
    jitter=st.sampled_from(Jitter),
    budget_s=st.none() | st.floats(0, 1e6),
    retry_after_cap_s=st.floats(0.1, 1e6),
)
seeds = st.integers(0, 2**32).map(random.Random)


@dataclass(frozen=True)
class Verdict:
    retryable: bool = True
    retry_at: datetime | None = None


verdicts = st.builds(
    Verdict,
    retryable=st.booleans(),
    retry_at=st.none() | st.floats(-1e6, 1e6).map(lambda seconds: NOW + timedelta(seconds=seconds)),
)


@given(policy=policies, attempt=st.integers(0, 10**6), rng=seeds, verdict=verdicts)
def test_a_delay_stays_within_its_bounds(
    policy: RetryPolicy, attempt: int, rng: random.Random, verdict: Verdict
) -> None:
    delay_s = policy.delay_for(attempt, rng, retry_at=verdict.retry_at, now=NOW)
    assert MIN_DELAY_S <= delay_s <= max(policy.cap_s, policy.retry_after_cap_s)


@given(
    policy=policies, attempt=st.integers(0, 1000), elapsed_s=st.floats(0, 1e6), rng=seeds, verdict=verdicts
)
def test_a_decision_spends_no_budget_twice_and_never_exceeds_the_longest_countdown(
    policy: RetryPolicy, attempt: int, elapsed_s: float, rng: random.Random, verdict: Verdict
) -> None:
    decision = decide(policy, verdict, attempt=attempt, elapsed_s=elapsed_s, now=NOW, rng=rng)
    if decision.retry:
        assert verdict.retryable
        assert attempt < policy.max_retries
        assert decision.reason == ""
        assert decision.delay_s <= policy.longest_countdown_s
        if policy.budget_s is not None:
            assert elapsed_s + decision.delay_s <= policy.budget_s
    else:
        assert decision.delay_s == 0
        assert decision.reason in set(Refusal)


@given(delay_s=st.floats(0.2, 100), base=st.floats(1, 4), attempt=st.integers(0, 8), rng=seeds)
def test_the_specifications_jitter_is_a_quarter_either_way(
    delay_s: float, base: float, attempt: int, rng: random.Random
) -> None:
    policy = RetryPolicy(delay_s=delay_s, base=base, cap_s=1e9)
    nominal = delay_s * base**attempt
    assert 0.75 * nominal * 0.999 <= policy.delay_for(attempt, rng) <= 1.25 * nominal * 1.001


@given(asked_s=st.floats(0.2, 3000), rng=seeds, jitter=st.sampled_from(Jitter))
def test_nobody_comes_back_before_the_other_side_allows_it(
    asked_s: float, rng: random.Random, jitter: Jitter
) -> None:
    policy = RetryPolicy(jitter=jitter)
    delay_s = policy.delay_for(0, rng, retry_at=NOW + timedelta(seconds=asked_s), now=NOW)
    assert asked_s - 1e-5 <= delay_s <= asked_s * 1.1 + 1e-5
