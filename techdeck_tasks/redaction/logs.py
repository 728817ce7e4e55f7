"""Redaction of log records, for the standard library's logging and for structlog."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from techdeck_tasks.redaction.context import UNPRINTABLE, sanitize_context
from techdeck_tasks.redaction.keys import is_sensitive_key
from techdeck_tasks.redaction.rule import REDACTED
from techdeck_tasks.redaction.sanitizer import redact

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
    and never drops a record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record` and let it pass."""
        try:
            _redact_record(record)
        except Exception:  # noqa: BLE001 - logging must not fail, and must not leak when it does
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
        A new dictionary of JSON-safe values. Never raises.
    """
    try:
        event = dict(event_dict)
        exc_info = event.pop("exc_info", None)
        result = {key: _field(key, value) for key, value in event.items()}
        formatted = _format_exception(exc_info)
        if formatted:
            result["exception"] = redact(formatted)
    except Exception:  # noqa: BLE001 - logging must not fail
        return {"event": UNPRINTABLE}
    return result


def _field(key: str, value: Any) -> Any:
    if key in _EVENT_FIELDS and isinstance(value, str):
        return value
    if is_sensitive_key(key) and value is not None:
        return REDACTED
    return redact(value) if isinstance(value, str) else sanitize_context(value)


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
    for key in vars(record).keys() - _STANDARD_FIELDS:
        setattr(record, key, _field(key, getattr(record, key)))


def _message(record: logging.LogRecord) -> str:
    """Merge message and arguments, as a secret may be split over both."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - logging prints such a call's template and arguments, so does this
        return f"{sanitize_context(record.msg)} {sanitize_context(record.args)}"


def _format_exception(exc_info: Any) -> str:
    """Format an exception with its causes; `exc_info` is what logging and structlog accept by that name."""
    if exc_info is True:
        return traceback.format_exc().rstrip("\n")
    if isinstance(exc_info, tuple) and len(exc_info) == 3:  # noqa: PLR2004 - type, value, traceback
        exc_info = exc_info[1]
    if isinstance(exc_info, BaseException):
        return "".join(traceback.format_exception(exc_info)).rstrip("\n")
    return ""
