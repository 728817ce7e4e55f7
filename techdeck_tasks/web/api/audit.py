"""The audit log: search it, prove it. Every read is itself on record."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.reading.reader import AuditReader
from techdeck_tasks.audit.reading.search import AuditFilter
from techdeck_tasks.errors import Severity
from techdeck_tasks.web.api.fields import Cursor, Limit, Plain, example
from techdeck_tasks.web.auth import Auditor, Overseer, RuntimeOf
from techdeck_tasks.web.operations import verify_log

router = APIRouter(tags=["audit"])

_ENTRY = {
    "occurred_at": "2026-01-05T09:00:00+00:00",
    "event_type": "error_handling",
    "error_code": "SERVICE_UNAVAILABLE",
    "severity": "high",
    "service": "dataset_load",
}


class Wanted(BaseModel):
    """Which entries are wanted; what is left out does not restrict, `until` is exclusive."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    event_type: EventType | None = None
    severity: Severity | None = None
    error_code: Plain | None = None
    error_id: Plain | None = None
    service: Plain | None = None
    operation: Plain | None = None
    outcome: Plain | None = None
    task_name: Plain | None = None
    task_id: Plain | None = None
    pipeline_id: Plain | None = None
    stage: Plain | None = None
    hipaa_related: bool | None = None
    user: Plain | None = None
    subject: Plain | None = None

    def as_filter(self) -> AuditFilter:
        """Return what the reader understands.

        Raises:
            ValidationError: `since` is not before `until`.
        """
        return AuditFilter(**self.model_dump(include=set(Wanted.model_fields)))


class WantedPage(Wanted):
    """Which page of which entries."""

    limit: Annotated[int, Query(ge=1, le=500)] = 50
    cursor: Annotated[str | None, Query(min_length=1, max_length=200)] = None


@router.get("/errors", responses=example({"errors": [_ENTRY], "next": None}))
def errors(
    runtime: RuntimeOf,
    caller: Overseer,
    *,
    limit: Limit = 50,
    cursor: Cursor = None,
    error_code: Annotated[Plain | None, Query()] = None,
    service: Annotated[Plain | None, Query()] = None,
) -> dict[str, Any]:
    """List handled errors, newest first: codes, services and times; what they say stays sealed."""
    wanted = AuditFilter(event_type=EventType.ERROR_HANDLING, error_code=error_code, service=service)
    page = AuditReader(runtime.engine, runtime.audit, None, caller.name).page(wanted, limit, cursor)
    found = [_without_document(entry.to_dict()) for entry in page.entries]
    return {"errors": found, "next": page.next_cursor}


@router.get("/audit", responses=example({"entries": [{**_ENTRY, "document": {}}], "next": None}))
def entries(runtime: RuntimeOf, caller: Auditor, wanted: Annotated[WantedPage, Query()]) -> dict[str, Any]:
    """Search the log, newest first; decrypted where this server has the reader's key."""
    page = runtime.audit_reader(caller.name).page(wanted.as_filter(), wanted.limit, wanted.cursor)
    return {"entries": [entry.to_dict() for entry in page.entries], "next": page.next_cursor}


@router.post("/audit/verify", responses=example({"ok": True, "rows": 12_345, "writers": 2, "findings": []}))
def verify(runtime: RuntimeOf, caller: Auditor) -> dict[str, Any]:
    """Recompute every digest and chain; takes as long as the log is large."""
    return verify_log(runtime, caller)


def _without_document(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("document", "problem")}
