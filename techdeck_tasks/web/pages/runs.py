"""Runs and their stages."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.pipeline.runs.state import CANCELLABLE_RUN_STATES, RESUMABLE_RUN_STATES, RunState
from techdeck_tasks.web.api.fields import Cursor, Reason
from techdeck_tasks.web.api.runs import find_run, page_of_runs
from techdeck_tasks.web.auth import STARTS, ActingSubmitter, RuntimeOf, Viewer
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/runs")

PAGE = 50


@router.get("")
def list_runs(
    request: Request, runtime: RuntimeOf, caller: Viewer, cursor: Cursor = None, state: RunState | None = None
) -> HTMLResponse:
    """List runs, the youngest first."""
    runs, following = page_of_runs(runtime, PAGE, cursor, state)
    return page(
        request,
        "runs.html",
        caller,
        runs=runs,
        following=following,
        later_page=cursor is not None,
        state=state,
        states=list(RunState),
    )


@router.get("/{run_id}")
def show(request: Request, runtime: RuntimeOf, caller: Viewer, run_id: UUID) -> HTMLResponse:
    """Show one run."""
    run = find_run(runtime, run_id)
    return page(
        request,
        "run.html",
        caller,
        run=run,
        may_cancel=caller.has(*STARTS) and run.state in CANCELLABLE_RUN_STATES,
        may_resume=caller.has(*STARTS) and run.state in RESUMABLE_RUN_STATES,
    )


@router.post("/{run_id}/cancel")
def cancel(
    runtime: RuntimeOf, caller: ActingSubmitter, run_id: UUID, reason: Annotated[Reason, Form()]
) -> Response:
    """Call a run off."""
    runtime.runs.cancel(str(run_id), owner=caller.name, reason=reason)
    return back_to(f"/runs/{run_id}", "cancelled")


@router.post("/{run_id}/resume")
def resume(
    runtime: RuntimeOf, caller: ActingSubmitter, run_id: UUID, reason: Annotated[Reason, Form()]
) -> Response:
    """Let a run go on from where it ended."""
    runtime.runs.resume(str(run_id), owner=caller.name, reason=reason)
    return back_to(f"/runs/{run_id}", "resumed")
