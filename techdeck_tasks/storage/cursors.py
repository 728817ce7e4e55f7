"""Cursors of paged lists: where a page ended, as text that callers hand back and need not understand."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from techdeck_tasks.errors import ValidationError

T = TypeVar("T")


def page(
    found: list[T], limit: int, place: Callable[[T], tuple[datetime, str]]
) -> tuple[list[T], str | None]:
    """Return the first `limit` of `found`, and where there are more, the cursor of the next page.

    Args:
        found: at most one more than a page has.
        limit: how many a page has.
        place: the moment and id by which they are in order.
    """
    if len(found) <= limit:
        return found, None
    moment, record_id = place(found[limit - 1])
    return found[:limit], encode(moment.isoformat(), record_id)


def encode(*parts: str) -> str:
    """Return the cursor of `parts`."""
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def position(text: str | None) -> tuple[datetime, str] | None:
    """Return the moment and id of what a page ended with.

    Raises:
        ValidationError: no page ended so.
    """
    if text is None:
        return None
    match _decode(text):
        case [str(moment), str(record_id)]:
            try:
                return _aware(moment), str(uuid.UUID(record_id))
            except ValueError:
                pass
    raise _malformed()


def _decode(text: str) -> Any:
    try:
        return json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _malformed() from None


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a cursor's moment is aware")
    return moment


def _malformed() -> ValidationError:
    return ValidationError(
        "this cursor is of no page; begin again without one", field="cursor", validation_rule="cursor"
    )
