"""What a task needs from the composition root, and how an application is given it."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Protocol, cast

from kombu.utils.imports import symbol_by_name

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.clock import Clock
from techdeck_tasks.events import Listener
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.resilience.backoff import RetryPolicy

if TYPE_CHECKING:
    from celery import Celery

    from techdeck_tasks.keyring import Cipher
    from techdeck_tasks.resilience.breaker import BreakerRegistry
    from techdeck_tasks.resilience.fallback import FallbackManager
    from techdeck_tasks.tasks.letters import LetterStore
    from techdeck_tasks.tasks.quarantine import Quarantine

DEFAULT_FACTORY = "techdeck_tasks.runtime:default_services"
"""By name, as Celery names its classes: the composition root is above this layer and must not be imported."""

_ATTRIBUTE = "techdeck_services"

logger = logging.getLogger(__name__)


class TaskServices(Protocol):
    """The parts of a runtime that tasks use."""

    @property
    def handler(self) -> ErrorHandler:
        """Classifies, answers and audits errors."""

    @property
    def listeners(self) -> Listener:
        """Hears of successes and retries."""

    @property
    def clock(self) -> Clock:
        """The time."""

    @property
    def rng(self) -> random.Random:
        """Where jitter comes from."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """The policy of tasks that declare none."""

    @property
    def cipher(self) -> Cipher:
        """Seals what leaves the process."""

    @property
    def breakers(self) -> BreakerRegistry:
        """Circuit breakers, shared by every process."""

    @property
    def fallbacks(self) -> FallbackManager:
        """Fallbacks by name, for tasks whose fallback is no task."""

    @property
    def keeps_eager_letters(self) -> bool:
        """Whether tasks in eager mode leave dead letters and wait for people, as those in a worker do."""

    @property
    def dead_letters(self) -> LetterStore:
        """Where tasks that failed for good are kept."""

    @property
    def interventions(self) -> LetterStore:
        """Where tasks wait for a person."""

    @property
    def quarantine(self) -> Quarantine:
        """Where messages that no worker can read are kept."""


class LogTrail:
    """The audit trail of an application that has no keys: the log, which says that nothing is audited."""

    def record(self, event: AuditEvent) -> None:
        """Say what is not on record. Never raises."""
        logger.warning(
            "not audited: error_id=%s error_code=%s; run 'techdeck keys generate' and call install(app)",
            event.error_id,
            event.error_code,
        )


def bind_services(app: Celery, services: TaskServices | None) -> None:
    """Give `app` its services; None takes them away."""
    setattr(app, _ATTRIBUTE, services)


def bound_services(app: Celery) -> TaskServices | None:
    """Return the services that `app` was given; None where it was given none."""
    return cast("TaskServices | None", getattr(app, _ATTRIBUTE, None))


def services_of(app: Celery) -> TaskServices:
    """Return the services of `app`, made from the environment's settings where it was given none."""
    services = bound_services(app)
    if services is None:
        services = symbol_by_name(DEFAULT_FACTORY)(app)
        bind_services(app, services)
    return services
