"""Cursors of paged lists: where a page ended, as text that callers hand back and need not understand."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from datetime import datetime
from typing import Any

from techdeck_tasks.errors import ValidationError


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
