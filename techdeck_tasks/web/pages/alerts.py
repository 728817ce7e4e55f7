"""Alerts: what fires, what is silenced, what is over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.alerts.condition import Severity, load_conditions
from techdeck_tasks.alerts.silence import silenced
from techdeck_tasks.alerts.state import Alert, AlertState
from techdeck_tasks.web.api.alerts import LONGEST_SILENCE_H, page_of_alerts
from techdeck_tasks.web.api.fields import Cursor, OptionalText, Reason, RecordId
from techdeck_tasks.web.auth import ActingOperator, RuntimeOf, Viewer
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/alerts")

SHOWN = 100
PAGE = 25


def by_urgency(alerts: Iterable[Alert]) -> list[Alert]:
    """Return alerts, critical ones first, those that fire before those that may."""
    return sorted(
        alerts, key=lambda alert: (alert.state is AlertState.PENDING, alert.severity != Severity.CRITICAL)
    )


@router.get("")
def list_alerts(request: Request, runtime: RuntimeOf, caller: Viewer, cursor: Cursor = None) -> HTMLResponse:
    """List what fires, the silences, and what is over; a page further on lists only the last."""
    over, following = page_of_alerts(runtime, PAGE, cursor, resolved=True)
    store = runtime.alerts
    active, silences = ([], []) if cursor else (store.search(limit=SHOWN), store.silences())
    return page(
        request,
        "alerts.html",
        caller,
        active=[(alert, silenced(alert, silences)) for alert in by_urgency(active)],
        silences=silences,
        over=over,
        following=following,
        first=cursor is None,
        watched_since=store.watched_since(),
        types=sorted(load_conditions()),
    )


@router.get("/{alert_id}")
def show(request: Request, runtime: RuntimeOf, caller: Viewer, alert_id: RecordId) -> HTMLResponse:
    """Show one alert, and what became of each notice."""
    alert = runtime.alerts.get(alert_id)
    return page(request, "alert.html", caller, alert=alert, deliveries=runtime.alerts.deliveries(alert))


@router.post("/{alert_id}/acknowledge")
def acknowledge(
    runtime: RuntimeOf, caller: ActingOperator, alert_id: RecordId, reason: Annotated[Reason, Form()]
) -> Response:
    """Take charge of one."""
    runtime.alerts.acknowledge(alert_id, by=caller.name, reason=reason)
    return back_to("/alerts", "acknowledged")


@router.post("/silences")
def silence(
    runtime: RuntimeOf,
    caller: ActingOperator,
    *,
    alert_type: Annotated[OptionalText, Form()] = None,
    subject: Annotated[OptionalText, Form()] = None,
    hours: Annotated[float, Form(gt=0, le=LONGEST_SILENCE_H)],
    reason: Annotated[Reason, Form()],
) -> Response:
    """Let nobody be told of certain alerts for a time."""
    runtime.alerts.silence(
        alert_type=alert_type, subject=subject, period=timedelta(hours=hours), by=caller.name, reason=reason
    )
    return back_to("/alerts", "silenced")


@router.post("/silences/{silence_id}/end")
def unsilence(
    runtime: RuntimeOf, caller: ActingOperator, silence_id: RecordId, reason: Annotated[Reason, Form()]
) -> Response:
    """End a silence now."""
    runtime.alerts.unsilence(silence_id, by=caller.name, reason=reason)
    return back_to("/alerts", "unsilenced")
