"""Alerts and silences: what is wrong, who was told, and who takes charge."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from techdeck_tasks.alerts.silence import silenced
from techdeck_tasks.alerts.state import Alert
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.storage import cursors
from techdeck_tasks.web.api.fields import Because, Cursor, Limit, Plain, Reason, RecordId, example
from techdeck_tasks.web.auth import Anyone, Operator, RuntimeOf

router = APIRouter(tags=["alerts"])

LONGEST_SILENCE_H = 24 * 365

_ALERT = {
    "alert_id": "5f0c8f7e-0d0a-4b7e-9d6b-6a1f4c1f9b11",
    "alert_type": "breaker_open",
    "subject": "lab",
    "severity": "warning",
    "state": "firing",
    "silenced": False,
}
_SILENCE = {"silence_id": "0b0e8a3f-...", "alert_type": "breaker_open", "subject": "lab", "owner": "ada"}


class Silencing(Because):
    """Which alerts nobody is told of, for how long, and why; one of type and subject at least."""

    alert_type: Plain | None = None
    subject: Plain | None = None
    hours: Annotated[float, Field(gt=0, le=LONGEST_SILENCE_H)]


@router.get("/alerts", responses=example({"alerts": [_ALERT], "next": None}))
def list_alerts(
    runtime: RuntimeOf,
    _: Anyone,
    *,
    resolved: Annotated[bool, Query(description="Those that are over, in place of those that fire.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """List alerts, the one seen last first."""
    alerts, following = page_of_alerts(runtime, limit, cursor, resolved=resolved)
    silences = runtime.alerts.silences()
    found = [{**alert.to_dict(), "silenced": silenced(alert, silences)} for alert in alerts]
    return {"alerts": found, "next": following}


@router.get("/alerts/{alert_id}", responses=example({**_ALERT, "deliveries": []}))
def show(runtime: RuntimeOf, _: Anyone, alert_id: RecordId) -> dict[str, Any]:
    """Show one alert, and what became of each notice; its id may be shortened."""
    alert = runtime.alerts.get(alert_id)
    return {**alert.to_dict(), "deliveries": runtime.alerts.deliveries(alert)}


@router.post("/alerts/{alert_id}/acknowledge", responses=example({**_ALERT, "acknowledged_by": "ada"}))
def acknowledge(runtime: RuntimeOf, caller: Operator, alert_id: RecordId, why: Because) -> dict[str, Any]:
    """Take charge of one: no more reminders, no escalation."""
    return runtime.alerts.acknowledge(alert_id, by=caller.name, reason=why.reason).to_dict()


@router.get("/silences", responses=example({"silences": [_SILENCE]}))
def list_silences(runtime: RuntimeOf, _: Anyone) -> dict[str, Any]:
    """List the silences that hold."""
    return {"silences": [silence.to_dict() for silence in runtime.alerts.silences()]}


@router.post(
    "/silences",
    status_code=HTTPStatus.CREATED,
    responses=example(_SILENCE, "It holds", HTTPStatus.CREATED),
)
def silence(runtime: RuntimeOf, caller: Operator, wanted: Silencing) -> dict[str, Any]:
    """Let nobody be told of certain alerts for a time; they are kept and recorded all the same."""
    made = runtime.alerts.silence(
        alert_type=wanted.alert_type,
        subject=wanted.subject,
        period=timedelta(hours=wanted.hours),
        by=caller.name,
        reason=wanted.reason,
    )
    return made.to_dict()


@router.delete("/silences/{silence_id}", responses=example(_SILENCE))
def unsilence(runtime: RuntimeOf, caller: Operator, silence_id: RecordId, reason: Reason) -> dict[str, Any]:
    """End a silence now; what still fires is told at the next evaluation."""
    return runtime.alerts.unsilence(silence_id, by=caller.name, reason=reason).to_dict()


def page_of_alerts(
    runtime: Runtime, limit: int, cursor: str | None, *, resolved: bool
) -> tuple[list[Alert], str | None]:
    """Return a page of alerts, and the cursor of the next one if there is one."""
    found = runtime.alerts.page(resolved=resolved, limit=limit + 1, before=cursors.position(cursor))
    return cursors.page(found, limit, lambda alert: (alert.last_seen, str(alert.alert_id)))
