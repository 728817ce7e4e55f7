"""Compliance reports: made, read, signed off."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from techdeck_tasks.audit.compliance.store import ReportKind, StoredReport
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.storage import cursors
from techdeck_tasks.web.api.fields import Cursor, Limit, Reason, RecordId, example
from techdeck_tasks.web.auth import Auditor, Caller, RuntimeOf

router = APIRouter(prefix="/reports", tags=["reports"])

_REPORT = {"report_id": "5f0c8f7e-0d0a-4b7e-9d6b-6a1f4c1f9b11", "kind": "weekly", "reviewed_by": None}


class ReportPeriod(BaseModel):
    """The time a report is about; `end` is exclusive."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime
    end: AwareDatetime


class Signature(BaseModel):
    """A reviewer's conclusion; with `sha256`, of exactly the copy that was read."""

    model_config = ConfigDict(extra="forbid")

    note: Reason
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


@router.get("", responses=example({"reports": [_REPORT], "next": None}))
def list_reports(runtime: RuntimeOf, _: Auditor, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """List the newest reports."""
    found, following = page_of_reports(runtime, limit, cursor)
    return {"reports": [report.summary() for report in found], "next": following}


@router.post(
    "", status_code=HTTPStatus.CREATED, responses=example(_REPORT, "It was made", HTTPStatus.CREATED)
)
def make(runtime: RuntimeOf, caller: Auditor, period: ReportPeriod) -> dict[str, Any]:
    """Make the report of a period."""
    return make_report(runtime, caller, period).summary()


@router.get("/{report_id}", responses=example({**_REPORT, "report": {"total_errors": 12}}))
def show(runtime: RuntimeOf, _: Auditor, report_id: RecordId) -> dict[str, Any]:
    """Show a report with its sign-off; its id may be shortened."""
    report = runtime.reports.get(report_id)
    return {**report.summary(), "report": report.document}


@router.post("/{report_id}/sign-off", responses=example({**_REPORT, "reviewed_by": "ada"}))
def sign_off(
    runtime: RuntimeOf, caller: Auditor, report_id: RecordId, signature: Signature
) -> dict[str, Any]:
    """Put the token's name under a report, once."""
    signed = runtime.reports.sign_off(
        report_id, reviewer=caller.name, note=signature.note, sha256=signature.sha256
    )
    return signed.summary()


def page_of_reports(
    runtime: Runtime, limit: int, cursor: str | None
) -> tuple[list[StoredReport], str | None]:
    """Return a page of reports, and the cursor of the next one if there is one."""
    found = runtime.reports.search(limit + 1, cursors.position(cursor))
    return cursors.page(found, limit, lambda report: (report.generated_at, report.report_id))


def make_report(runtime: Runtime, caller: Caller, period: ReportPeriod) -> StoredReport:
    """Make and store the report of a period, with what is in the log by now."""
    runtime.incidents.catch_up()
    made = runtime.reports.make(ReportKind.ON_DEMAND, period.start, period.end, caller.name)
    assert made is not None, "an on-demand report belongs to no slot that could be taken"
    return made
