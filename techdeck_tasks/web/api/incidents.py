"""Security incidents, and who looks into them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from techdeck_tasks.audit.incidents.incident import Incident, IncidentState
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.storage import cursors
from techdeck_tasks.web.api.fields import Cursor, Limit, Plain, Reason, RecordId, example
from techdeck_tasks.web.auth import Auditor, Overseer, RuntimeOf

router = APIRouter(prefix="/incidents", tags=["incidents"])

_INCIDENT = {"incident_id": "019b...", "error_code": "AUTH_ERROR", "state": "open", "overdue": False}


class Noted(BaseModel):
    """A decision with what it was based on."""

    model_config = ConfigDict(extra="forbid")

    note: Reason


class Assignment(Noted):
    """Who investigates."""

    assignee: Plain


class Resolution(Noted):
    """How it ended; `secured`: the information was unreadable to others (45 CFR 164.402)."""

    secured: bool


@router.get("", responses=example({"incidents": [_INCIDENT], "next": None}))
def list_incidents(
    runtime: RuntimeOf,
    _: Overseer,
    *,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[IncidentState | None, Query()] = None,
    overdue: Annotated[bool, Query(description="Only unresolved ones whose deadline is over.")] = False,
) -> dict[str, Any]:
    """List the newest incidents with the last day for notifying individuals (45 CFR 164.404)."""
    now = runtime.clock.now()
    found, following = page_of_incidents(runtime, limit, cursor, state, overdue=overdue)
    return {"incidents": [incident.to_dict(now) for incident in found], "next": following}


@router.get("/{incident_id}", responses=example(_INCIDENT))
def show(runtime: RuntimeOf, _: Overseer, incident_id: RecordId) -> dict[str, Any]:
    """Show one incident; its id may be shortened."""
    return runtime.incidents.get(incident_id).to_dict(runtime.clock.now())


@router.post("/{incident_id}/assign", responses=example(_INCIDENT))
def assign(runtime: RuntimeOf, caller: Auditor, incident_id: RecordId, given: Assignment) -> dict[str, Any]:
    """Give it to somebody to investigate."""
    changed = runtime.incidents.assign(incident_id, assignee=given.assignee, by=caller.name, note=given.note)
    return changed.to_dict(runtime.clock.now())


@router.post("/{incident_id}/resolve", responses=example(_INCIDENT))
def resolve(runtime: RuntimeOf, caller: Auditor, incident_id: RecordId, given: Resolution) -> dict[str, Any]:
    """End the investigation for good."""
    changed = runtime.incidents.resolve(incident_id, secured=given.secured, by=caller.name, note=given.note)
    return changed.to_dict(runtime.clock.now())


@router.post("/{incident_id}/dismiss", responses=example(_INCIDENT))
def dismiss(runtime: RuntimeOf, caller: Auditor, incident_id: RecordId, given: Noted) -> dict[str, Any]:
    """End the investigation for good: it was no incident."""
    changed = runtime.incidents.dismiss(incident_id, by=caller.name, note=given.note)
    return changed.to_dict(runtime.clock.now())


def page_of_incidents(
    runtime: Runtime, limit: int, cursor: str | None, state: IncidentState | None, *, overdue: bool = False
) -> tuple[list[Incident], str | None]:
    """Return a page of incidents, and the cursor of the next one if there is one."""
    found = runtime.incidents.search(state, overdue=overdue, limit=limit + 1, before=cursors.position(cursor))
    return cursors.page(found, limit, lambda incident: (incident.discovered_at, incident.incident_id))
