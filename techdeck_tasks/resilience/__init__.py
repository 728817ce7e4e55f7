"""Staying up when something else is down: backoff, circuit breakers, retries, fallbacks, recovery."""

from techdeck_tasks.resilience.backoff import Jitter, Refusal, RetryDecision, RetryPolicy, decide
from techdeck_tasks.resilience.breaker import (
    AwayPolicy,
    BreakerConfig,
    BreakerRegistry,
    CircuitBreaker,
    Counting,
    Permit,
    RetryBudget,
    State,
)
from techdeck_tasks.resilience.fallback import FallbackManager
from techdeck_tasks.resilience.recovery import RecoveryManager
from techdeck_tasks.resilience.resources import RecoveryResources
from techdeck_tasks.resilience.retry import RetryManager
from techdeck_tasks.resilience.statistics import RetryRegistry

__all__ = [
    "AwayPolicy",
    "BreakerConfig",
    "BreakerRegistry",
    "CircuitBreaker",
    "Counting",
    "FallbackManager",
    "Jitter",
    "Permit",
    "RecoveryManager",
    "RecoveryResources",
    "Refusal",
    "RetryBudget",
    "RetryDecision",
    "RetryManager",
    "RetryPolicy",
    "RetryRegistry",
    "State",
    "decide",
]
