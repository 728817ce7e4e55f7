"""What of an exception may leave the process that raised it: in a result, an event, a log, a retry."""

from __future__ import annotations

from typing import Any

from techdeck_tasks.errors import TechDeckError, as_techdeck_error
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import redact, sanitize_message


def disclosable(error: BaseException) -> BaseException:
    """Return `error` as it may be shown: itself where it tells nothing, a redacted twin where it does.

    The type is kept wherever it can be, so that callers catch what they expect. Causes and contexts are
    dropped: they hold what the message was cleaned of. Never raises.
    """
    shown = _without_secrets(error)
    shown.__cause__ = shown.__context__ = None
    notes = getattr(shown, "__notes__", None)
    if notes:
        shown.__notes__ = [redact(str(note)) for note in notes]
    return shown


def _without_secrets(error: BaseException) -> BaseException:
    if isinstance(error, TechDeckError):
        return error
    if isinstance(error, (MemoryError, BaseExceptionGroup)):
        # Celery ends the whole worker on a MemoryError; a group prints every member.
        return as_techdeck_error(error)
    try:
        text, safe = str(error), text_of(error)
        if safe == text and _is_clean(text) and all(map(_is_clean, (a for a in error.args if a is not text))):
            return error
        # Where the library is known to quote data, its text without them is all that is kept.
        arguments = (
            [_clean(argument) for argument in error.args] if safe == text else [sanitize_message(safe)]
        )
        twin = type(error)(*arguments)
        if text_of(twin) == str(twin) and _is_clean(str(twin)):
            return twin.with_traceback(error.__traceback__)
    except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001, S110 - foreign constructors and __str__ raise anything; the line below answers
        pass
    return as_techdeck_error(error)


def _is_clean(value: Any) -> bool:
    if isinstance(value, str):
        return sanitize_message(value) == value
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return _is_clean(repr(value))
    # Bytes are data; of anything else nobody knows what its repr shows elsewhere.
    return value is None or isinstance(value, (bool, int, float))


def _clean(value: Any) -> Any:
    return value if _is_clean(value) else sanitize_message(str(value))
