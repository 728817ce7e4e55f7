"""The moment after which a worker revokes a message instead of running its task."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any


def expires_within(request: Any, delay_s: float, now: datetime, timezone: tzinfo) -> bool:
    """Tell whether a worker would revoke the task of `request` instead of running it in `delay_s` seconds.

    Args:
        request: the running attempt.
        delay_s: until the next one.
        now: the present moment, aware.
        timezone: the application's, for a message that names none.
    """
    expires = request.expires
    if isinstance(expires, str):
        try:
            expires = datetime.fromisoformat(expires)
        except ValueError:  # Celery does not read it either, and runs the task
            return False
    if not isinstance(expires, datetime):
        return False
    aware = expires if expires.tzinfo is not None else expires.replace(tzinfo=timezone)
    return aware <= now + timedelta(seconds=delay_s)
