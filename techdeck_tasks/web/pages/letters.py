"""Dead letters and interventions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from techdeck_tasks.tasks.letters import LetterKind
from techdeck_tasks.web.api.fields import Cursor, Reason, RecordId
from techdeck_tasks.web.auth import ActingOperator, RuntimeOf, ViewingOperator
from techdeck_tasks.web.operations import drop_letter, letters_of, send_letter
from techdeck_tasks.web.pages.render import back_to, page

router = APIRouter()

PAGE = 50


def _serve(kind: LetterKind, path: str, sending: str, sent: str) -> None:
    @router.get(path)
    def list_letters(
        request: Request, runtime: RuntimeOf, caller: ViewingOperator, cursor: Cursor = None
    ) -> HTMLResponse:
        store = letters_of(runtime, kind)
        letters, following = store.page(PAGE, cursor)
        return page(
            request,
            "letters.html",
            caller,
            letters=[letter.summary() for letter in letters],
            count=store.count(),
            following=following,
            later_page=cursor is not None,
            dead=kind is LetterKind.DEAD,
            sending=sending,
        )

    @router.post(f"{path}/{{letter_id}}/{sending}")
    def send(
        runtime: RuntimeOf,
        caller: ActingOperator,
        letter_id: RecordId,
        reason: Annotated[Reason, Form()],
        force: Annotated[bool, Form()] = False,
    ) -> Response:
        send_letter(runtime, caller, kind, letter_id, reason=reason, force=force)
        return back_to(path, sent)

    @router.post(f"{path}/{{letter_id}}/drop")
    def drop(
        runtime: RuntimeOf, caller: ActingOperator, letter_id: RecordId, reason: Annotated[Reason, Form()]
    ) -> Response:
        drop_letter(runtime, caller, kind, letter_id, reason=reason)
        return back_to(path, "dropped")


_serve(LetterKind.DEAD, "/dead-letters", "replay", "replayed")
_serve(LetterKind.INTERVENTION, "/interventions", "resolve", "resolved")
