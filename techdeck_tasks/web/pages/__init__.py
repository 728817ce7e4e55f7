"""The dashboard: pages made on the server, one module a subject."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from techdeck_tasks.web.pages import (
    alerts,
    audit,
    breakers,
    incidents,
    letters,
    login,
    overview,
    quarantine,
    reports,
    runs,
    schedules,
)

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
for part in (
    overview,
    runs,
    schedules,
    breakers,
    alerts,
    letters,
    quarantine,
    audit,
    reports,
    incidents,
    login,
):
    router.include_router(part.router)
