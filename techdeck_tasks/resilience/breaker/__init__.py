"""The circuit breaker: one state in Redis for every process, cached where that is safe."""

from techdeck_tasks.resilience.breaker.circuit import CircuitBreaker
from techdeck_tasks.resilience.breaker.config import AwayPolicy, BreakerConfig, Counting, RetryBudget
from techdeck_tasks.resilience.breaker.permit import Permit
from techdeck_tasks.resilience.breaker.registry import BreakerRegistry
from techdeck_tasks.resilience.breaker.state import BreakerStore, State, Transition

__all__ = [
    "AwayPolicy",
    "BreakerConfig",
    "BreakerRegistry",
    "BreakerStore",
    "CircuitBreaker",
    "Counting",
    "Permit",
    "RetryBudget",
    "State",
    "Transition",
]
