"""Security incidents."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.audit.incidents.incident import IncidentState
from techdeck_tasks.web.api.fields import Cursor, Reason, RecordId
from techdeck_tasks.web.api.incidents import page_of_incidents
from techdeck_tasks.web.auth import ActingAuditor, RuntimeOf, ViewingOverseer
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/incidents")

PAGE = 50


class Decision(StrEnum):
    """What an auditor may decide of an incident."""

    TAKE = "take"
    SECURED = "secured"
    UNSECURED = "unsecured"
    DISMISS = "dismiss"


@router.get("")
def list_incidents(
    request: Request,
    runtime: RuntimeOf,
    caller: ViewingOverseer,
    cursor: Cursor = None,
    state: IncidentState | None = None,
) -> HTMLResponse:
    """List the newest incidents."""
    found, following = page_of_incidents(runtime, PAGE, cursor, state)
    return page(
        request,
        "incidents.html",
        caller,
        incidents=found,
        following=following,
        later_page=cursor is not None,
        state=state,
        states=list(IncidentState),
    )


@router.post("/{incident_id}")
def decide(
    runtime: RuntimeOf,
    caller: ActingAuditor,
    incident_id: RecordId,
    decision: Annotated[Decision, Form()],
    note: Annotated[Reason, Form()],
) -> Response:
    """Take an incident on, or end its investigation."""
    store, by = runtime.incidents, caller.name
    if decision is Decision.TAKE:
        store.assign(incident_id, assignee=by, by=by, note=note)
    elif decision is Decision.DISMISS:
        store.dismiss(incident_id, by=by, note=note)
    else:
        store.resolve(incident_id, secured=decision is Decision.SECURED, by=by, note=note)
    return back_to("/incidents", "incident")
