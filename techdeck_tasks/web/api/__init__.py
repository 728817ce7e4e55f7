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
    reports,
    runs,
    uploads,
)

PREFIX = "/api/v1"

router = APIRouter(prefix=PREFIX)
for part in (runs, uploads, breakers, figures, alerts, letters, audit, reports, incidents):
    router.include_router(part.router)
