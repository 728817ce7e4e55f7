"""Circuit breakers: look at them, and overrule them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from techdeck_tasks.web.api.fields import Because, BreakerName, example
from techdeck_tasks.web.auth import Anyone, Operator, RuntimeOf
from techdeck_tasks.web.operations import BreakerAction, breaker_status, change_breaker

router = APIRouter(prefix="/breakers", tags=["breakers"])

_STATUS = {"operation_name": "dataset_load", "state": "open", "failure_count": 5, "threshold": 5}


class Decision(Because):
    """What to do with a breaker, why, and for how long."""

    action: BreakerAction
    minutes: Annotated[
        float | None,
        Field(ge=0.01, le=525_600, description="Of an override; without it, until it is cleared."),
    ] = None


@router.get("", responses=example({"breakers": [_STATUS]}))
def list_breakers(runtime: RuntimeOf, _: Anyone) -> dict[str, Any]:
    """List every breaker that ever opened."""
    return {"breakers": list(runtime.breakers.get_status().values())}


@router.get("/{name:path}", responses=example({**_STATUS, "transitions": []}))
def show(runtime: RuntimeOf, _: Anyone, name: BreakerName) -> dict[str, Any]:
    """Show one breaker and its last transitions. One that never failed is closed."""
    return breaker_status(runtime, name)


@router.post("/{name:path}", responses=example(_STATUS))
def decide(runtime: RuntimeOf, caller: Operator, name: BreakerName, decision: Decision) -> dict[str, Any]:
    """Reset a breaker, override it (open, disable, shadow), or clear an override; everywhere, at once."""
    change_breaker(runtime, caller, name, decision.action, reason=decision.reason, minutes=decision.minutes)
    return runtime.breakers.get_status(name)
