"""Breakers, their history, and the buttons to overrule them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.web.api.fields import BreakerName, Reason
from techdeck_tasks.web.auth import ActingOperator, RuntimeOf, Viewer
from techdeck_tasks.web.operations import BreakerAction, breaker_status, change_breaker
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/breakers")


@router.get("")
def list_breakers(request: Request, runtime: RuntimeOf, caller: Viewer) -> HTMLResponse:
    """List every breaker that ever opened."""
    breakers = list(runtime.breakers.get_status().values())
    return page(request, "breakers.html", caller, breakers=breakers)


@router.get("/{name:path}")
def show(request: Request, runtime: RuntimeOf, caller: Viewer, name: BreakerName) -> HTMLResponse:
    """Show one breaker and its last transitions."""
    return page(request, "breaker.html", caller, breaker=breaker_status(runtime, name))


@router.post("/{name:path}")
def decide(
    runtime: RuntimeOf,
    caller: ActingOperator,
    name: BreakerName,
    action: Annotated[BreakerAction, Form()],
    reason: Annotated[Reason, Form()],
) -> Response:
    """Act on a breaker."""
    change_breaker(runtime, caller, name, action, reason=reason)
    return back_to(f"/breakers/{quote(name, safe='/')}", "breaker")
