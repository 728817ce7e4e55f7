"""The first page: what goes wrong, what runs, what waits for somebody."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from techdeck_tasks.alerts.condition import Severity
from techdeck_tasks.alerts.state import AlertState
from techdeck_tasks.metrics.buckets import hours_until
from techdeck_tasks.pipeline.runs.state import FINAL_RUN_STATES, RunState
from techdeck_tasks.resilience.breaker import State
from techdeck_tasks.web.auth import RuntimeOf, Viewer
from techdeck_tasks.web.chart import draw
from techdeck_tasks.web.operations import last_verdict
from techdeck_tasks.web.pages.alerts import by_urgency
from techdeck_tasks.web.pages.render import page
from techdeck_tasks.web.trend import error_rate, hours_of

router = APIRouter()

HOURS = 24
ACTIVE_SHOWN = 8
ALERTS_SHOWN = 5
RETRIED_SHOWN = 8
_TROUBLED = frozenset({State.OPEN, State.FORCED_OPEN, State.HALF_OPEN})


@router.get("/")
def overview(request: Request, runtime: RuntimeOf, caller: Viewer) -> HTMLResponse:
    """Show everything at a glance."""
    runtime.metrics.flush()  # what this process itself counted is to be seen
    hours = hours_of(runtime.metrics_store.read(hours_until(runtime.clock.now(), HOURS)))
    store = runtime.pipeline_store
    active = store.list_runs(ACTIVE_SHOWN, states=frozenset(RunState) - FINAL_RUN_STATES)
    firing = by_urgency(alert for alert in runtime.alerts.search() if alert.state is AlertState.FIRING)
    breakers = runtime.breakers.get_status()
    retries = runtime.retry_registry.get_statistics()
    most_retried = sorted(
        retries["operations"].items(), key=lambda item: item[1]["total_retries"], reverse=True
    )
    return page(
        request,
        "overview.html",
        caller,
        chart=draw(hours),
        rate=error_rate(hours),
        alerts=firing[:ALERTS_SHOWN],
        firing=len(firing),
        urgent=sum(alert.severity == Severity.CRITICAL for alert in firing),
        active=[store.get_run(run.run_id) for run in active],
        breakers=sorted(breakers.values(), key=lambda status: status["state"] not in _TROUBLED),
        troubled=sum(status["state"] in _TROUBLED for status in breakers.values()),
        retries=retries,
        most_retried=most_retried[:RETRIED_SHOWN],
        dead=runtime.dead_letters.count(),
        waiting=runtime.interventions.count(),
        verdict=last_verdict(runtime),
    )
