"""The HTTP API, one router a subject, all below ``/api/v1``."""

from __future__ import annotations

from fastapi import APIRouter

from techdeck_tasks.web.api import (
    alerts,
    audit,
    breakers,
    figures,
    incidents,
    letters,
    quarantine,
    reports,
    runs,
    schedules,
    uploads,
)

PREFIX = "/api/v1"

router = APIRouter(prefix=PREFIX)
for part in (
    runs,
    uploads,
    schedules,
    figures,
    alerts,
    breakers,
    letters,
    quarantine,
    audit,
    reports,
    incidents,
):
    router.include_router(part.router)
