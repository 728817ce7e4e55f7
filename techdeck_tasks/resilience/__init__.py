"""Staying up when something else is down: backoff, circuit breakers, retries, fallbacks, recovery."""

from techdeck_tasks.resilience.backoff import Jitter, Refusal, RetryDecision, RetryPolicy, decide

__all__ = ["Jitter", "Refusal", "RetryDecision", "RetryPolicy", "decide"]
