"""Tasks behind breakers, with fallbacks, dead letters and people to ask."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task

from techdeck_tasks.errors import (
    AuthenticationError,
    BiasDetectionError,
    ServiceUnavailableError,
    ValidationError,
)
from techdeck_tasks.resilience.backoff import Jitter, RetryPolicy
from techdeck_tasks.resilience.breaker import BreakerConfig
from techdeck_tasks.runtime import runtime_of
from techdeck_tasks.tasks.base import TechDeckTask

ONCE = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=1, delay_s=0.1, jitter=Jitter.NONE, cap_s=1, retry_after_cap_s=3, budget_s=30)
# No snapshot: each of the worker's children must know at once what another one has seen.
QUICK_BREAKER = BreakerConfig(
    failure_threshold=2, success_threshold=1, open_s=0.6, open_growth=1, snapshot_s=0
)
UP = "test:up:"


def register(app: Celery) -> None:
    """Give `app` the tasks."""

    def task(**options: Any) -> Any:
        def decorate(function: Any) -> Any:
            name = f"sample.{function.__name__}"
            return app.task(name=name, base=TechDeckTask, bind=True, shared=False, **options)(function)

        return decorate

    def call(self: Task, service: str) -> str:
        """Serve where the test has switched `service` on."""
        if not runtime_of(self.app).redis.exists(UP + service):
            raise ServiceUnavailableError(f"{service} is away", service_name=service)
        return "served"

    @task(service="lab-parking", retry=ONCE, breaker=QUICK_BREAKER)
    def parking(self: Task) -> str:
        return call(self, "lab-parking")

    @task(service="lab-raising", retry=ONCE, breaker=QUICK_BREAKER, when_open="raise")
    def raising(self: Task) -> str:
        return call(self, "lab-raising")

    @task(service="lab-unguarded", retry=ONCE, breaker=False)
    def unguarded(self: Task) -> str:
        return call(self, "lab-unguarded")

    @task(service="lab-strict", retry=ONCE, breaker=QUICK_BREAKER)
    def invalid(self: Task) -> None:
        raise ValidationError("the sender's own fault")

    @task()
    def spare(self: Task, value: int) -> dict[str, Any]:
        return {"value": value, "from": "spare"}

    @task(retry=ONCE)
    def broken_spare(self: Task, value: int) -> None:
        raise ServiceUnavailableError("the spare is away, too")

    @task(retry=TWICE, breaker=False, fallback="sample.spare")
    def with_spare(self: Task, value: int) -> None:
        raise ServiceUnavailableError("canary-primary is away")

    @task(retry=ONCE, breaker=False, fallback="sample.broken_spare")
    def with_broken_spare(self: Task, value: int) -> None:
        raise ServiceUnavailableError("the primary is away")

    @task(retry=ONCE, breaker=False, fallback="bias_detection")
    def with_registered(self: Task) -> None:
        raise ServiceUnavailableError("the detector is away")

    @task(
        service="lab-spare", retry=ONCE, breaker=QUICK_BREAKER, when_open="fallback", fallback="sample.spare"
    )
    def spare_when_open(self: Task, value: int) -> str:
        return call(self, "lab-spare")

    @task(retry=ONCE, breaker=False, fallback="sample.spare")
    def finding(self: Task, value: int) -> None:
        raise BiasDetectionError("bias is above its threshold")

    @task(retry=ONCE, breaker=False, fallback="sample.spare")
    def intruder(self: Task, value: int) -> None:
        raise AuthenticationError("who are you?")

    @task(service="lab-letter", retry=ONCE, breaker=False)
    def doomed(self: Task, value: str) -> str:
        return call(self, "lab-letter") + value

    @task(service="lab-parking", retry=ONCE, breaker=QUICK_BREAKER, when_open="raise")
    def doomed_behind_parking(self: Task) -> str:
        return call(self, "lab-parking")

    @task(service="lab-person", retry=ONCE, breaker=False, recovery="request_user_intervention")
    def needs_a_person(self: Task, value: int) -> int:
        if not runtime_of(self.app).redis.exists(UP + "lab-person"):
            raise ValidationError("the file must be mended first")
        return value
