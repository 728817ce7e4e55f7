"""Pipelines that beat starts again and again."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from techdeck_tasks.pipeline.schedules import Schedule
from techdeck_tasks.web.api.fields import Because, Reason, example
from techdeck_tasks.web.auth import Anyone, RuntimeOf, Submitter
from techdeck_tasks.web.operations import add_schedule, remove_schedule

router = APIRouter(prefix="/schedules", tags=["schedules"])

ScheduleName = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/]+$")]

_SCHEDULE = {"name": "patients", "cron": "0 6 * * *", "last_slot": "2026-01-05T06:00:00+00:00"}
_DEFINITION = {
    "name": "patients",
    "schedule": "0 6 * * *",
    "source": {"url": "s3://lab/patients.csv"},
    "stages": [{"name": "load", "stage": "dataset_load"}],
}


class Scheduling(Because):
    """A pipeline with its `schedule`, five crontab fields in UTC, and why it is started again and again."""

    definition: Annotated[dict[str, Any], Field(examples=[_DEFINITION])]


@router.get("", responses=example({"schedules": [_SCHEDULE]}))
def list_schedules(runtime: RuntimeOf, _: Anyone) -> dict[str, Any]:
    """List the schedules by name; `last_slot` is the slot started last, or when it was added."""
    return {"schedules": [_shown(schedule) for schedule in runtime.schedules.list_schedules()]}


@router.post("", status_code=HTTPStatus.CREATED, responses=example(_SCHEDULE, "It holds", HTTPStatus.CREATED))
def add(runtime: RuntimeOf, caller: Submitter, wanted: Scheduling) -> dict[str, Any]:
    """Start a pipeline at each slot of its schedule from now on; replaces the schedule of the same name."""
    return _shown(add_schedule(runtime, caller, wanted.definition, reason=wanted.reason))


@router.delete("/{name}", status_code=HTTPStatus.NO_CONTENT)
def remove(runtime: RuntimeOf, caller: Submitter, name: ScheduleName, reason: Reason) -> None:
    """End a schedule; runs it has started go on."""
    remove_schedule(runtime, caller, name, reason=reason)


def _shown(schedule: Schedule) -> dict[str, Any]:
    return {"name": schedule.name, "cron": schedule.cron, "last_slot": schedule.last_slot.isoformat()}
