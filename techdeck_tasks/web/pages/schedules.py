"""Schedules of pipelines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.pipeline.cron import next_slot
from techdeck_tasks.web.api.fields import Reason
from techdeck_tasks.web.api.schedules import ScheduleName
from techdeck_tasks.web.auth import STARTS, ActingSubmitter, RuntimeOf, Viewer
from techdeck_tasks.web.operations import remove_schedule
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/schedules")


@router.get("")
def list_schedules(request: Request, runtime: RuntimeOf, caller: Viewer) -> HTMLResponse:
    """List the schedules by name."""
    now = runtime.clock.now()
    schedules = [(each, next_slot(each.cron, now)) for each in runtime.schedules.list_schedules()]
    return page(request, "schedules.html", caller, schedules=schedules, may_remove=caller.has(*STARTS))


@router.post("/{name}/remove")
def remove(
    runtime: RuntimeOf, caller: ActingSubmitter, name: ScheduleName, reason: Annotated[Reason, Form()]
) -> Response:
    """End a schedule."""
    remove_schedule(runtime, caller, name, reason=reason)
    return back_to("/schedules", "unscheduled")
