"""Dead letters and interventions: tasks that ended for good, or wait for a person."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from techdeck_tasks.tasks.letters import LetterKind
from techdeck_tasks.web.api.fields import Because, Cursor, Limit, Reason, RecordId, example
from techdeck_tasks.web.auth import Operator, RuntimeOf
from techdeck_tasks.web.operations import drop_letter, letters_of, send_letter

router = APIRouter(tags=["letters"])

_LETTER = {"letter_id": "5f0c8f7e-0d0a-4b7e-9d6b-6a1f4c1f9b11", "task_name": "lab.fetch", "attempts": 4}


class Sending(Because):
    """Why a task is sent again, and whether even while its breaker is open."""

    force: bool = False


def _serve(kind: LetterKind, path: str, sending: str) -> None:
    @router.get(
        path, name=f"list {path[1:]}", responses=example({"letters": [_LETTER], "count": 1, "next": None})
    )
    def list_letters(
        runtime: RuntimeOf, _: Operator, limit: Limit = 50, cursor: Cursor = None
    ) -> dict[str, Any]:
        """List the newest, without their arguments."""
        store = letters_of(runtime, kind)
        letters, following = store.page(limit, cursor)
        listed = [letter.summary() for letter in letters]
        return {"letters": listed, "count": store.count(), "next": following}

    @router.post(
        f"{path}/{{letter_id}}/{sending}", name=f"{sending} {path[1:]}", responses=example({"task_id": "..."})
    )
    def send(runtime: RuntimeOf, caller: Operator, letter_id: RecordId, sent: Sending) -> dict[str, Any]:
        """Send one again; refused while its breaker is open, unless forced."""
        task_id = send_letter(runtime, caller, kind, letter_id, reason=sent.reason, force=sent.force)
        return {"task_id": task_id}

    @router.delete(f"{path}/{{letter_id}}", name=f"drop {path[1:]}", responses=example({"dropped": "..."}))
    def drop(runtime: RuntimeOf, caller: Operator, letter_id: RecordId, reason: Reason) -> dict[str, Any]:
        """Forget one."""
        drop_letter(runtime, caller, kind, letter_id, reason=reason)
        return {"dropped": letter_id}


_serve(LetterKind.DEAD, "/dead-letters", "replay")
_serve(LetterKind.INTERVENTION, "/interventions", "resolve")
