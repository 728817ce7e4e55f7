"""The audit worker's scheduled tasks. Plain Celery tasks: an error of the audit must not audit itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Task

from techdeck_tasks.audit.verify_run import Verification

if TYPE_CHECKING:
    from celery import Celery

UPKEEP = "techdeck.audit.upkeep"
VERIFY = "techdeck.audit.verify"
BREAKERS = "techdeck.audit.breakers"
INCIDENTS = "techdeck.audit.incidents"
REPORTS = "techdeck.audit.reports"
ALERTS = "techdeck.alerts.evaluate"


def register(
    app: Celery,
    *,
    upkeep: Callable[[], None],
    verify: Callable[[], Verification],
    record_breakers: Callable[[], int],
    project_incidents: Callable[[], int],
    make_due_reports: Callable[[], int],
    evaluate_alerts: Callable[[], None],
) -> None:
    """Give `app` the audit log's scheduled tasks. Each may run twice for one slot without harm.

    Args:
        app: the audit worker's application.
        upkeep: makes the coming partitions and sends what waits in the spool.
        verify: proves that nobody changed the log, and keeps the result.
        record_breakers: puts the breakers' transitions on record.
        project_incidents: enters the log's new security incidents into their table.
        make_due_reports: makes the compliance reports whose period is over.
        evaluate_alerts: finds out what is wrong, and tells people.
    """

    def run_upkeep() -> None:
        upkeep()

    def run_verify() -> dict[str, Any]:
        return verify().to_dict()

    def run_breakers() -> int:
        return record_breakers()

    def run_incidents() -> int:
        return project_incidents()

    def run_reports() -> int:
        return make_due_reports()

    def run_alerts() -> None:
        evaluate_alerts()

    bodies = {
        UPKEEP: run_upkeep,
        VERIFY: run_verify,
        BREAKERS: run_breakers,
        INCIDENTS: run_incidents,
        REPORTS: run_reports,
        ALERTS: run_alerts,
    }
    for name, body in bodies.items():
        app.task(body, name=name, base=Task, shared=False, ignore_result=True)
