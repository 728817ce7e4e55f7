"""Compliance reports: made, read, signed off."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.audit.compliance.page import render_html
from techdeck_tasks.web.api.fields import Cursor, Reason, RecordId
from techdeck_tasks.web.api.reports import ReportPeriod, make_report, page_of_reports
from techdeck_tasks.web.auth import ActingAuditor, RuntimeOf, ViewingAuditor
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/reports")

PAGE = 50
_WEEK = timedelta(days=7)

# A report is one self-contained file: its style is its own. It may do nothing else.
_REPORT_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


@router.get("")
def list_reports(
    request: Request, runtime: RuntimeOf, caller: ViewingAuditor, cursor: Cursor = None
) -> HTMLResponse:
    """List the newest, and offer to make one."""
    today = runtime.clock.now().date()
    reports, following = page_of_reports(runtime, PAGE, cursor)
    return page(
        request,
        "reports.html",
        caller,
        reports=reports,
        following=following,
        later_page=cursor is not None,
        first=today - _WEEK,
        last=today,
    )


@router.post("")
def make(
    runtime: RuntimeOf,
    caller: ActingAuditor,
    first: Annotated[date, Form()],
    last: Annotated[date, Form()],
) -> Response:
    """Make the report of some days, the last one among them."""
    start = datetime.combine(first, time(), UTC)
    end = datetime.combine(last, time(), UTC) + timedelta(days=1)
    made = make_report(runtime, caller, ReportPeriod(start=start, end=min(end, runtime.clock.now())))
    return back_to(f"/reports/{made.report_id}", "made")


@router.get("/{report_id}")
def show(request: Request, runtime: RuntimeOf, caller: ViewingAuditor, report_id: RecordId) -> HTMLResponse:
    """Show a report's figures and its sign-off."""
    report = runtime.reports.get(report_id)
    return page(request, "report.html", caller, report=report, document=report.document)


@router.get("/{report_id}/document")
def document(runtime: RuntimeOf, _: ViewingAuditor, report_id: RecordId) -> HTMLResponse:
    """Show the whole report, fit for print."""
    return HTMLResponse(render_html(runtime.reports.get(report_id)), headers=_REPORT_POLICY)


@router.post("/{report_id}/sign-off")
def sign_off(
    runtime: RuntimeOf,
    caller: ActingAuditor,
    report_id: RecordId,
    note: Annotated[Reason, Form()],
    sha256: Annotated[str, Form(pattern=r"^[0-9a-f]{64}$")],
) -> Response:
    """Sign the report that was shown, and no other."""
    signed = runtime.reports.sign_off(report_id, reviewer=caller.name, note=note, sha256=sha256)
    return back_to(f"/reports/{signed.report_id}", "signed")
