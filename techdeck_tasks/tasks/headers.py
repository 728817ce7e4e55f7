"""The shape of a task message's headers, which Celery takes on trust and anybody at the broker can write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _limits(value: Any) -> bool:
    return value is None or (
        isinstance(value, (list, tuple))
        and len(value) == 2  # noqa: PLR2004 - the hard and the soft limit
        and all(limit is None or isinstance(limit, (int, float)) for limit in value)
    )


def _names_or_none(value: Any) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and all(map(_text, value)))


_SHAPES: Mapping[str, Callable[[Any], bool]] = {
    "task": _text,
    "id": _text,
    "root_id": _text_or_none,
    "parent_id": _text_or_none,
    "group": _text_or_none,
    "shadow": _text_or_none,
    "retries": _count,
    "timelimit": _limits,
    "stamped_headers": _names_or_none,
    "stamps": lambda value: value is None or isinstance(value, dict),
}


def header_of(request: Any, name: str) -> Any:
    """Return a custom header of a request, or None. In eager mode `request.headers` may be anything."""
    headers = request.headers
    return headers.get(name) if isinstance(headers, Mapping) else None


def malformed_header(headers: Any) -> str | None:
    """Return the name of the first header that Celery would stumble over late; None where all are well.

    Headers that are absent, or that are no task's, are left to Celery.
    """
    if not isinstance(headers, Mapping) or "task" not in headers:
        return None
    for name, fits in _SHAPES.items():
        if name in headers and not fits(headers[name]):
            return name
    return None
