"""The audit log: searched, read, proved."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlencode

import pydantic
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.reading.reader import Page
from techdeck_tasks.errors import Severity
from techdeck_tasks.web.api.audit import Wanted
from techdeck_tasks.web.api.fields import Cursor
from techdeck_tasks.web.auth import ActingAuditor, Caller, RuntimeOf, ViewingAuditor
from techdeck_tasks.web.operations import last_verdict, verify_log
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/audit")

PAGE = 50
FIELDS = ("event_type", "severity", "error_code", "service", "pipeline_id", "error_id", "user")


@router.get("")
def entries(
    request: Request, runtime: RuntimeOf, caller: ViewingAuditor, cursor: Cursor = None
) -> HTMLResponse:
    """Search the log; an empty field does not restrict."""
    given = {name: value for name in FIELDS if (value := request.query_params.get(name, "").strip())}
    try:
        wanted = Wanted.model_validate(given).as_filter()
    except pydantic.ValidationError as error:
        wrong = {str(problem["loc"][0]) for problem in error.errors()}
        return _page(request, caller, given, Page([], None), wrong=wrong, verdict=last_verdict(runtime))
    found = runtime.audit_reader(caller.name).page(wanted, PAGE, cursor)
    return _page(request, caller, given, found, cursor=cursor, verdict=last_verdict(runtime))


@router.post("/verify")
def verify(runtime: RuntimeOf, caller: ActingAuditor) -> Response:
    """Recompute the chains."""
    verify_log(runtime, caller)
    return back_to("/audit", "verified")


def _page(
    request: Request,
    caller: Caller,
    given: dict[str, str],
    found: Page,
    *,
    cursor: str | None = None,
    wrong: Collection[str] = (),
    verdict: dict[str, object] | None,
) -> HTMLResponse:
    return page(
        request,
        "audit.html",
        caller,
        status=HTTPStatus.BAD_REQUEST if wrong else HTTPStatus.OK,
        entries=found.entries,
        following=found.next_cursor,
        later_page=cursor is not None,
        query=urlencode(given),
        given=given,
        wrong=wrong,
        verdict=verdict,
        event_types=list(EventType),
        severities=list(Severity),
    )
