"""What of an exception may leave the process that raised it: in a result, an event, a log, a retry."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any

from techdeck_tasks.errors import TechDeckError, approachable, as_techdeck_error
from techdeck_tasks.errors.anatomy import attributes_of, forget_preceding
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import redact, sanitize_message
from techdeck_tasks.redaction.foreign import is_order, text_from

_MAX_NOTES = 100


def disclosable(error: BaseException) -> BaseException:
    """Return `error` as it may be shown: itself where it tells nothing, a redacted twin where it does.

    The type is kept wherever it can be, so that callers catch what they expect. Causes and contexts are
    dropped: they hold what the message was cleaned of. Never raises.
    """
    shown = _without_secrets(approachable(error))
    forget_preceding(shown)
    attributes = attributes_of(shown)
    if notes := dict.get(attributes, "__notes__"):
        dict.__setitem__(attributes, "__notes__", _clean_notes(notes))
    return shown


def _without_secrets(error: BaseException) -> BaseException:
    if isinstance(error, TechDeckError):
        return error
    if isinstance(error, (MemoryError, BaseExceptionGroup)):
        # Celery ends the whole worker on a MemoryError; a group prints every member.
        return as_techdeck_error(error)
    try:
        text, safe = str(error), text_of(error)
        if (
            safe == text
            and _is_clean(text)
            and all(map(_is_clean, (a for a in error.args if a is not text)))
            and _bears_celery(error)
        ):
            return error
        # Where the library is known to quote data, its text without them is all that is kept.
        arguments = (
            [_clean(argument) for argument in error.args] if safe == text else [sanitize_message(safe)]
        )
        twin = type(error)(*arguments)
        if text_of(twin) == str(twin) and _is_clean(str(twin)) and _bears_celery(twin):
            return twin.with_traceback(error.__traceback__)
    except BaseException as trouble:
        # Foreign constructors and __str__ raise anything; the line below answers.
        if is_order(trouble):
            raise
    return as_techdeck_error(error)


def _bears_celery(error: BaseException) -> bool:
    """Whether what Celery does to `error` raises nothing unexpected, and prints no more than its text."""
    with suppress(Exception):  # Celery then takes the nearest class that can be pickled
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what this process made
    plain = type(error).__repr__ is BaseException.__repr__  # its class and arguments
    return bool(error) and (plain or _is_clean(repr(error)))


def _clean_notes(notes: Any) -> list[str]:
    if not isinstance(notes, (list, tuple)):
        return []
    return [redact(note) for note in map(text_from, notes[:_MAX_NOTES]) if note is not None]


def _is_clean(value: Any) -> bool:
    if isinstance(value, str):
        return sanitize_message(value) == value
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return _is_clean(repr(value))
    # Bytes are data; of anything else nobody knows what its repr shows elsewhere.
    return value is None or isinstance(value, (bool, int, float))


def _clean(value: Any) -> Any:
    return value if _is_clean(value) else sanitize_message(str(value))
