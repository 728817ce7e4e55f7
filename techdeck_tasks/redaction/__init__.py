"""Keeps secrets and identifiers out of messages, contexts and logs.

`sanitize_message` is for what a user or an operator sees, `redact` for tracebacks and log lines,
`sanitize_context` for structured data, `RedactingFilter` and `redact_event` for logging and structlog.
"""

from techdeck_tasks.redaction.context import sanitize_context
from techdeck_tasks.redaction.logs import RedactingFilter, redact_event
from techdeck_tasks.redaction.rule import REDACTED
from techdeck_tasks.redaction.sanitizer import MAX_MESSAGE_CHARS, MAX_TEXT_CHARS, redact, sanitize_message

__all__ = [
    "MAX_MESSAGE_CHARS",
    "MAX_TEXT_CHARS",
    "REDACTED",
    "RedactingFilter",
    "redact",
    "redact_event",
    "sanitize_context",
    "sanitize_message",
]
