"""Messages that no worker could read."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from techdeck_tasks.web.api.fields import Because, Cursor, Limit, Reason, RecordId, example
from techdeck_tasks.web.auth import Operator, RuntimeOf
from techdeck_tasks.web.operations import drop_message, replay_message

router = APIRouter(prefix="/quarantine", tags=["quarantine"])

_MESSAGE = {
    "message_id": "5f0c8f7e-0d0a-4b7e-9d6b-6a1f4c1f9b11",
    "reason": "no such task",
    "queue": "pipeline",
    "size_bytes": 812,
}


@router.get("", responses=example({"messages": [_MESSAGE], "count": 1, "next": None}))
def list_messages(
    runtime: RuntimeOf, _: Operator, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """List the newest, without their contents."""
    messages, following = runtime.quarantine.page(limit, cursor)
    return {
        "messages": [message.summary() for message in messages],
        "count": runtime.quarantine.count(),
        "next": following,
    }


@router.post("/{message_id}/replay", responses=example({"queue": "pipeline"}))
def replay(runtime: RuntimeOf, caller: Operator, message_id: RecordId, why: Because) -> dict[str, Any]:
    """Send one to its queue again, now that a worker can read it."""
    return {"queue": replay_message(runtime, caller, message_id, reason=why.reason)}


@router.delete("/{message_id}", responses=example({"dropped": "..."}))
def drop(runtime: RuntimeOf, caller: Operator, message_id: RecordId, reason: Reason) -> dict[str, Any]:
    """Forget one."""
    drop_message(runtime, caller, message_id, reason=reason)
    return {"dropped": message_id}
