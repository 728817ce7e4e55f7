"""Runs of pipelines: start one, look at them."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Header, HTTPException, Query

from techdeck_tasks.errors import PipelineExecutionError
from techdeck_tasks.pipeline.models import MAX_IDEMPOTENCY_KEY_CHARS
from techdeck_tasks.pipeline.runs.state import RunState
from techdeck_tasks.pipeline.runs.view import RunView
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.storage import cursors
from techdeck_tasks.web.api.fields import Because, Cursor, Limit, example
from techdeck_tasks.web.auth import Anyone, Operator, RuntimeOf, Submitter
from techdeck_tasks.web.operations import reconcile_runs, start_pipeline

router = APIRouter(prefix="/runs", tags=["runs"])

_DEFINITION = {
    "name": "patients",
    "source": {"url": "s3://lab/patients.csv"},
    "stages": [{"name": "load", "stage": "dataset_load"}],
}
_RUN = {
    "run_id": "5f0c8f7e-0d0a-4b7e-9d6b-6a1f4c1f9b11",
    "name": "patients",
    "state": "running",
    "created_at": "2026-01-05T09:00:00+00:00",
}


@router.post(
    "", status_code=HTTPStatus.ACCEPTED, responses=example(_RUN, "It was accepted", HTTPStatus.ACCEPTED)
)
def start(
    runtime: RuntimeOf,
    caller: Submitter,
    definition: Annotated[dict[str, Any], Body(examples=[_DEFINITION])],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=MAX_IDEMPOTENCY_KEY_CHARS,
            pattern=r"^[\x21-\x7e]+$",
            description="A second request with the same key and definition returns the first one's run.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Start a pipeline."""
    return start_pipeline(runtime, caller, definition, idempotency_key)


@router.post("/reconcile", responses=example({"resent": 1, "lost": 0, "failed": 0}))
def reconcile(runtime: RuntimeOf, caller: Operator, why: Because) -> dict[str, Any]:
    """Send again, now, what lost messages and dead workers left behind; beat does so every 15 seconds."""
    return asdict(reconcile_runs(runtime, caller, reason=why.reason))


@router.get("", responses=example({"runs": [_RUN], "next": None}))
def list_runs(
    runtime: RuntimeOf,
    _: Anyone,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
) -> dict[str, Any]:
    """List runs, the youngest first, without their stages."""
    found, following = page_of_runs(runtime, limit, cursor, state)
    return {"runs": [view.to_dict() for view in found], "next": following}


@router.get("/{run_id}", responses=example(_RUN))
def show(runtime: RuntimeOf, _: Anyone, run_id: UUID) -> dict[str, Any]:
    """Show a run and its stages."""
    return find_run(runtime, run_id).to_dict()


@router.post("/{run_id}/cancel", responses=example({"run_id": _RUN["run_id"], "state": "cancelling"}))
def cancel(runtime: RuntimeOf, caller: Submitter, run_id: UUID, why: Because) -> dict[str, Any]:
    """Call a run off. What waits does not start; what runs stops at its next checkpoint."""
    find_run(runtime, run_id)
    state = runtime.runs.cancel(str(run_id), owner=caller.name, reason=why.reason)
    return {"run_id": str(run_id), "state": state}


@router.post("/{run_id}/resume", responses=example({"run_id": _RUN["run_id"], "stages": ["load"]}))
def resume(runtime: RuntimeOf, caller: Submitter, run_id: UUID, why: Because) -> dict[str, Any]:
    """Let a failed or cancelled run go on from where it ended; what succeeded is not done again."""
    find_run(runtime, run_id)
    stages = runtime.runs.resume(str(run_id), owner=caller.name, reason=why.reason)
    return {"run_id": str(run_id), "stages": stages}


def page_of_runs(
    runtime: Runtime, limit: int, cursor: str | None, state: RunState | None
) -> tuple[list[RunView], str | None]:
    """Return a page of runs, and the cursor of the next one if there is one."""
    found = runtime.pipeline_store.list_runs(
        limit + 1, states=[state] if state else [], before=cursors.position(cursor)
    )
    return cursors.page(found, limit, lambda run: (run.created_at, run.run_id))


def find_run(runtime: Runtime, run_id: UUID) -> RunView:
    """Return a run with its stages; 404 where there is none."""
    try:
        return runtime.pipeline_store.get_run(str(run_id))
    except PipelineExecutionError:
        raise HTTPException(HTTPStatus.NOT_FOUND) from None
