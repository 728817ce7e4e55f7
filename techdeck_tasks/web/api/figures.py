"""Figures over all processes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict

from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.web.api.fields import Plain, example
from techdeck_tasks.web.auth import Anyone, RuntimeOf

router = APIRouter(tags=["figures"])

MOST_HOURS = 24 * 365


class Errors(BaseModel):
    """Which errors are asked for."""

    model_config = ConfigDict(extra="forbid")

    error_code: Plain | None = None
    severity: Severity | None = None
    service: Plain | None = None
    operation: Plain | None = None
    recoverable: bool | None = None
    hipaa_related: bool | None = None


class ErrorsOfTime(Errors):
    """Which errors of which time; default: of the last 24 hours."""

    start: AwareDatetime | None = None
    end: AwareDatetime | None = None


class ErrorsOfHours(Errors):
    """Which errors of the last hours."""

    hours: Annotated[int, Query(ge=1, le=MOST_HOURS)] = 24


@router.get("/statistics", responses=example({"total_errors": 12, "error_rate": 1.5, "top_error_codes": []}))
def statistics(runtime: RuntimeOf, _: Anyone, wanted: Annotated[ErrorsOfTime, Query()]) -> dict[str, Any]:
    """Tell how many errors there were, of which kinds, and how the trend is."""
    if (wanted.start is None) != (wanted.end is None):
        raise ValidationError("a time has a start and an end; give both or none", field="start")
    times = {"start": wanted.start, "end": wanted.end} if wanted.start and wanted.end else None
    filters = wanted.model_dump(exclude_none=True, include=set(Errors.model_fields))
    return runtime.metrics.get_error_statistics(times, filters)


@router.get(
    "/trend",
    responses=example(
        {
            "hours": [
                {
                    "hour": "2026-01-05T09:00:00+00:00",
                    "error_count": 3,
                    "total_requests": 120,
                    "error_rate_percentage": 2.5,
                }
            ]
        }
    ),
)
def trend(runtime: RuntimeOf, _: Anyone, wanted: Annotated[ErrorsOfHours, Query()]) -> dict[str, Any]:
    """Tell executions and errors hour by hour; the last hour is still running."""
    filters = wanted.model_dump(exclude_none=True, include=set(Errors.model_fields))
    return {"hours": runtime.metrics.get_error_rate_trend(wanted.hours, filters)}


@router.get(
    "/alert-conditions",
    responses=example({"conditions": [{"alert_type": "high_error_rate", "severity": "warning"}]}),
)
def alert_conditions(runtime: RuntimeOf, _: Anyone) -> dict[str, Any]:
    """Tell which figures of the last hour exceed their threshold at this moment, alert or not."""
    return {"conditions": runtime.metrics.get_alert_conditions()}


@router.get(
    "/retries",
    responses=example({"total_operations": 120, "total_retries": 9, "retry_distribution": {"1": 7, "2": 1}}),
)
def retries(
    runtime: RuntimeOf,
    _: Anyone,
    operation: Annotated[Plain | None, Query(description="Of this one; default: of all.")] = None,
) -> dict[str, Any]:
    """Tell how often operations were retried, and with what success."""
    return runtime.retry_registry.get_statistics(operation)
