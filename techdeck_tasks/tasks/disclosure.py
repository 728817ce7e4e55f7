"""What of an exception may leave the process that raised it: in a result, an event, a log, a retry."""

from __future__ import annotations

from typing import Any

from techdeck_tasks.errors import TechDeckError, as_techdeck_error
from techdeck_tasks.redaction import redact, sanitize_message


def disclosable(error: Exception) -> Exception:
    """Return `error` as it may be shown: itself where it tells nothing, a redacted twin where it does.

    The type is kept wherever it can be, so that callers catch what they expect. Causes, contexts and notes
    are dropped: they hold what the message was cleaned of. Never raises.
    """
    shown = _without_secrets(error)
    shown.__cause__ = None
    shown.__context__ = None
    shown.__suppress_context__ = True
    notes = getattr(shown, "__notes__", None)
    if notes:
        shown.__notes__ = [redact(str(note)) for note in notes]
    return shown


def _without_secrets(error: Exception) -> Exception:
    if isinstance(error, TechDeckError):
        return error
    if isinstance(error, (MemoryError, BaseExceptionGroup)):
        # Celery ends the whole worker on a MemoryError; a group prints every member.
        return as_techdeck_error(error)
    try:
        if _is_clean(str(error)) and all(_is_clean(argument) for argument in error.args):
            return error
        twin = type(error)(*[_clean(argument) for argument in error.args])
        if _is_clean(str(twin)):
            return twin.with_traceback(error.__traceback__)
    except Exception:  # noqa: BLE001, S110 - foreign constructors and __str__ raise anything; the line below answers
        pass
    return as_techdeck_error(error)


def _is_clean(value: Any) -> bool:
    if isinstance(value, str):
        return sanitize_message(value) == value
    return value is None or isinstance(value, (bool, int, float))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return sanitize_message(value)
    return value if _is_clean(value) else sanitize_message(str(value))
