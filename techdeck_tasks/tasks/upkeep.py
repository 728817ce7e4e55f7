"""The audit worker's scheduled tasks. Plain Celery tasks: an error of the audit must not audit itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from celery import Task
from redis import Redis

from techdeck_tasks.audit.proof.verify_run import Verification
from techdeck_tasks.clock import Clock
from techdeck_tasks.tasks.turns import once_a_slot

if TYPE_CHECKING:
    from celery import Celery

UPKEEP = "techdeck.audit.upkeep"
VERIFY = "techdeck.audit.verify"
BREAKERS = "techdeck.audit.breakers"
INCIDENTS = "techdeck.audit.incidents"
REPORTS = "techdeck.audit.reports"
PRUNE = "techdeck.audit.prune"
ALERTS = "techdeck.alerts.evaluate"

PERIODS: Final[Mapping[str, timedelta]] = {
    UPKEEP: timedelta(minutes=1),
    BREAKERS: timedelta(seconds=15),
    INCIDENTS: timedelta(minutes=1),
    REPORTS: timedelta(hours=1),
    VERIFY: timedelta(days=1),
    PRUNE: timedelta(days=1),
}
"""How often beat sends them. The alerts take their turns in PostgreSQL, with what they decide there."""


def register(
    app: Celery,
    *,
    redis: Callable[[], Redis],
    clock: Clock,
    upkeep: Callable[[], None],
    verify: Callable[[], Verification],
    record_breakers: Callable[[], int],
    project_incidents: Callable[[], int],
    make_due_reports: Callable[[], int],
    prune: Callable[[], int],
    evaluate_alerts: Callable[[], None],
) -> None:
    """Give `app` the audit log's scheduled tasks. Two beats run each once a slot; twice would do no harm.

    Args:
        app: the audit worker's application.
        redis: where slots are taken.
        clock: the time.
        upkeep: makes the coming partitions and sends what waits in the spool.
        verify: proves that nobody changed the log, and keeps the result.
        record_breakers: puts the breakers' transitions on record.
        project_incidents: enters the log's new security incidents into their table.
        make_due_reports: makes the compliance reports whose period is over.
        prune: archives and drops the log's months that are past their retention.
        evaluate_alerts: finds out what is wrong, and tells people.
    """

    def verify_as_json() -> dict[str, Any]:
        return verify().to_dict()

    bodies: dict[str, Callable[[], object]] = {
        UPKEEP: upkeep,
        VERIFY: verify_as_json,
        BREAKERS: record_breakers,
        INCIDENTS: project_incidents,
        REPORTS: make_due_reports,
        PRUNE: prune,
    }
    guarded = {name: once_a_slot(name, PERIODS[name], body, redis, clock) for name, body in bodies.items()}

    def run_alerts() -> None:
        evaluate_alerts()

    for name, body in {**guarded, ALERTS: run_alerts}.items():
        app.task(body, name=name, base=Task, shared=False, ignore_result=True)
