"""Messages that no worker could read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.web.api.fields import Cursor, Reason, RecordId
from techdeck_tasks.web.auth import ActingOperator, RuntimeOf, ViewingOperator
from techdeck_tasks.web.operations import drop_message, replay_message
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter(prefix="/quarantine")

PAGE = 50


@router.get("")
def list_messages(
    request: Request, runtime: RuntimeOf, caller: ViewingOperator, cursor: Cursor = None
) -> HTMLResponse:
    """List the newest, without their contents."""
    messages, following = runtime.quarantine.page(PAGE, cursor)
    return page(
        request,
        "quarantine.html",
        caller,
        messages=[message.summary() for message in messages],
        count=runtime.quarantine.count(),
        following=following,
        later_page=cursor is not None,
    )


@router.post("/{message_id}/replay")
def replay(
    runtime: RuntimeOf, caller: ActingOperator, message_id: RecordId, reason: Annotated[Reason, Form()]
) -> Response:
    """Send one to its queue again."""
    replay_message(runtime, caller, message_id, reason=reason)
    return back_to("/quarantine", "replayed")


@router.post("/{message_id}/drop")
def drop(
    runtime: RuntimeOf, caller: ActingOperator, message_id: RecordId, reason: Annotated[Reason, Form()]
) -> Response:
    """Forget one."""
    drop_message(runtime, caller, message_id, reason=reason)
    return back_to("/quarantine", "dropped")
