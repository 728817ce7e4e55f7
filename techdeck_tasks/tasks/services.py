"""What a task needs from the composition root, and how an application is given it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from techdeck_tasks.clock import Clock
from techdeck_tasks.events import Listener
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.resilience.backoff import RetryPolicy

if TYPE_CHECKING:
    from celery import Celery

    from techdeck_tasks.tasks.quarantine import Quarantine

_ATTRIBUTE = "techdeck_services"


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
    def quarantine(self) -> Quarantine:
        """Where messages that no worker can read are kept."""


_default_factory: Callable[[Celery], TaskServices] | None = None


def set_default_factory(factory: Callable[[Celery], TaskServices]) -> None:
    """Say how services are made for an application that was given none; the package does so on import."""
    global _default_factory  # noqa: PLW0603 - the one place where a layer above hands itself down
    _default_factory = factory


def bind_services(app: Celery, services: TaskServices) -> None:
    """Give `app` its services."""
    setattr(app, _ATTRIBUTE, services)


def services_of(app: Celery) -> TaskServices:
    """Return the services of `app`, made from the environment's settings where it was given none.

    Raises:
        RuntimeError: it was given none and there is no default.
    """
    services = getattr(app, _ATTRIBUTE, None)
    if services is None:
        if _default_factory is None:
            raise RuntimeError(f"Celery application {app.main!r} has no techdeck services; call install(app)")
        services = _default_factory(app)
        bind_services(app, services)
    return cast("TaskServices", services)
