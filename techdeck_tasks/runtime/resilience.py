"""What keeps work going while something fails: breakers, retries, fallbacks, and letters of what did not."""

from __future__ import annotations

from functools import cached_property

from techdeck_tasks.resilience.backoff import RetryPolicy
from techdeck_tasks.resilience.breaker import BreakerRegistry
from techdeck_tasks.resilience.fallback import FallbackManager
from techdeck_tasks.resilience.recovery import RecoveryManager
from techdeck_tasks.resilience.resources import (
    DatabaseConnection,
    RecoveryResources,
    RedisCache,
    RedisConnection,
)
from techdeck_tasks.resilience.retry import RetryManager
from techdeck_tasks.resilience.statistics import RetryRegistry
from techdeck_tasks.runtime.connections import Connections
from techdeck_tasks.tasks.letters import LetterKind, LetterStore, RedisShelf
from techdeck_tasks.tasks.quarantine import Quarantine


class Resilience(Connections):
    """Breakers, retries, fallbacks and recovery, shared by all processes through Redis."""

    @cached_property
    def breakers(self) -> BreakerRegistry:
        """Circuit breakers, shared through Redis."""
        return BreakerRegistry(self.redis, self.settings, clock=self.clock, listener=self.listeners)

    @cached_property
    def fallbacks(self) -> FallbackManager:
        """Fallbacks by operation name; the specification's four to begin with."""
        manager = FallbackManager(self.settings)
        manager.create_default_fallbacks()
        return manager

    @cached_property
    def recovery(self) -> RecoveryManager:
        """What may make the next attempt succeed: connections are reset, caches cleared."""
        resources = RecoveryResources(
            connections={"redis": RedisConnection(self.redis), "postgresql": DatabaseConnection(self.engine)},
            cache=RedisCache(self.redis),
        )
        return RecoveryManager(self.settings, resources, clock=self.clock, discover=True)

    @cached_property
    def retry_registry(self) -> RetryRegistry:
        """How often operations and tasks were retried, over all processes."""
        return RetryRegistry(self.redis, clock=self.clock)

    @cached_property
    def retries(self) -> RetryManager:
        """Retries for plain callables, outside Celery."""
        return RetryManager(
            self.settings,
            self.breakers,
            self.retry_registry,
            clock=self.clock,
            listener=self.listeners,
        )

    @cached_property
    def dead_letters(self) -> LetterStore:
        """Tasks that failed for good."""
        return LetterStore(RedisShelf(self.redis, LetterKind.DEAD), self.cipher, self.clock)

    @cached_property
    def interventions(self) -> LetterStore:
        """Tasks that wait for a person."""
        return LetterStore(RedisShelf(self.redis, LetterKind.INTERVENTION), self.cipher, self.clock)

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        """The policy of tasks that declare none."""
        return RetryPolicy.from_settings(self.settings)

    @cached_property
    def quarantine(self) -> Quarantine:
        """Where messages that no worker can read are kept."""
        return Quarantine(self.redis, self.cipher, self.clock)
