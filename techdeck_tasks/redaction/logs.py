"""Redaction of log records, for the standard library's logging and for structlog."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from techdeck_tasks.redaction.context import MAX_ITEMS, TRUNCATED, UNPRINTABLE, Walk, sanitize_context
from techdeck_tasks.redaction.foreign import dotted_name, is_order
from techdeck_tasks.redaction.keys import is_sensitive_key
from techdeck_tasks.redaction.rule import REDACTED
from techdeck_tasks.redaction.sanitizer import MAX_TEXT_CHARS, redact

# What logging itself puts on a record. Everything else came from `extra=` or another filter.
_STANDARD_FIELDS: Final = frozenset(
    vars(logging.LogRecord("", logging.NOTSET, "", 0, "", (), None)).keys()
    | {"message", "asctime", "taskName"}
)
# Written by the program, not by its data.
_EVENT_FIELDS: Final = frozenset({"level", "logger", "timestamp", "log_level", "positional_args"})


class RedactingFilter(logging.Filter):
    """Redacts a record's message, arguments, exception, stack and extra fields.

    Put it on handlers rather than on loggers: a logger's filters do not see the records of its children.
    The record is changed in place, so one filtering handler protects the handlers behind it. Never raises
    and never drops a record. Of extra fields the first `MAX_ITEMS` and their first `MAX_TEXT_CHARS`
    characters are read; the others are shown as `[TRUNCATED]`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` and let it pass."""
        try:
            _redact_record(record)
        except BaseException as trouble:
            # Logging must not fail, and must not leak when it does.
            if is_order(trouble):
                raise
            record.msg, record.args = f"{REDACTED} (record could not be redacted)", ()
            record.exc_info = record.exc_text = record.stack_info = None
        return True


def redact_event(
    logger: Any,  # noqa: ARG001 - structlog calls processors with these three
    method: str,  # noqa: ARG001
    event_dict: MutableMapping[str, Any],
) -> Mapping[str, Any]:
    """Redact an event; a structlog processor.

    Place it after `format_exc_info`, so that the formatted exception is redacted too; an `exc_info` that is
    still there is formatted and redacted here.

    Returns:
        A new dictionary of JSON-safe values, at most `MAX_ITEMS` and their first `MAX_TEXT_CHARS` characters;
        the number of those left out is under `[TRUNCATED]`. Never raises.
    """
    try:
        event = dict(event_dict)
        exc_info = event.pop("exc_info", None)
        result: dict[str, Any] = {}
        fields = _Fields()
        for key, value in event.items():
            if fields.full:
                result[TRUNCATED] = len(event) - len(result)
                break
            result[key] = fields.told(key, value)
        formatted = _format_exception(exc_info)
        if formatted:
            result["exception"] = redact(formatted)
    except BaseException as trouble:
        # Logging must not fail.
        if is_order(trouble):
            raise
        return {"event": UNPRINTABLE}
    return result


class _Fields:
    """The fields of one record: counts what it reads of them."""

    def __init__(self) -> None:
        self._read = 0
        self._chars = 0
        self._walk = Walk()

    @property
    def full(self) -> bool:
        """Whether no more are read."""
        return self._read >= MAX_ITEMS or self._chars >= MAX_TEXT_CHARS

    def told(self, key: str, value: Any) -> Any:
        """Return what is shown of a field."""
        self._read += 1
        if key in _EVENT_FIELDS and isinstance(value, str):
            return value
        if is_sensitive_key(key) and value is not None:
            return REDACTED
        if not isinstance(value, str):
            return self._walk.visit(value, 0)
        self._chars += len(value)
        return redact(value)


def _redact_record(record: logging.LogRecord) -> None:
    record.msg, record.args = redact(_message(record)), ()
    formatted = record.exc_text or _format_exception(record.exc_info)
    if formatted:
        # The text is kept and the exception is not: a formatter would print the original once more.
        record.exc_text = redact(formatted)
    record.exc_info = None
    if record.stack_info:
        record.stack_info = redact(str(record.stack_info))
    if hasattr(record, "message"):
        record.message = record.msg
    fields = _Fields()
    for key in [key for key in vars(record) if key not in _STANDARD_FIELDS]:
        setattr(record, key, TRUNCATED if fields.full else fields.told(key, getattr(record, key)))


def _message(record: logging.LogRecord) -> str:
    """Merge message and arguments, as a secret may be split over both."""
    try:
        return record.getMessage()
    except BaseException as trouble:
        # Logging prints such a call's template and arguments, so does this.
        if is_order(trouble):
            raise
        return f"{sanitize_context(record.msg)} {sanitize_context(record.args)}"


def _format_exception(exc_info: Any) -> str:
    """Format an exception with its causes; `exc_info` is what logging and structlog accept by that name."""
    if exc_info is True:
        return traceback.format_exc().rstrip("\n")
    if type(exc_info) is tuple and len(exc_info) == 3:  # noqa: PLR2004 - type, value, traceback
        exc_info = exc_info[1]
    if not issubclass(type(exc_info), BaseException):
        return ""
    try:
        return "".join(traceback.format_exception(exc_info)).rstrip("\n")
    except BaseException as trouble:
        # An exception may raise when it is looked at; the record goes on without it.
        if is_order(trouble):
            raise
        return f"{dotted_name(type(exc_info))} (could not be formatted)"
