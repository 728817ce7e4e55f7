"""What is put on record of an error: columns that anybody may read, and a document that is sealed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from techdeck_tasks.errors.base import RetryRule, TechDeckError, without_errors
from techdeck_tasks.errors.classification import UNKNOWN, Classification, classify
from techdeck_tasks.errors.stack import stack_of
from techdeck_tasks.errors.taxonomy import InternalError
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import redact, sanitize_context, sanitize_message
from techdeck_tasks.redaction.foreign import dotted_name, short_name

_COLUMNS = ("task_name", "task_id", "pipeline_id", "stage", "user_id", "subject_id")
_PERSONS = frozenset({"user_id", "subject_id"})
_KNOWN = frozenset({*_COLUMNS, "service", "operation", "attempt"})
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z_.]{0,199}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def columns_of(error: BaseException, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the clear columns that `facts`, and the error's own details, fill."""
    details = error.details if isinstance(error, TechDeckError) else {}
    columns: dict[str, Any] = {}
    for name in _COLUMNS:
        value = facts.get(name) or details.get(name)
        if value is not None:
            # The two persons leave the process only as a blind index: redaction would make them all alike.
            columns[name] = str(value) if name in _PERSONS else clear_value(str(value))
    attempt = facts.get("attempt")
    if isinstance(attempt, int):
        columns["attempt"] = attempt
    return columns


def clear_value(value: str) -> str:
    """Return `value` fit for a clear column: names and UUIDs as they are, the rest redacted."""
    return value if _PLAIN.fullmatch(value) else sanitize_message(value)


def document_of(
    error: BaseException,
    found: Classification,
    facts: Mapping[str, Any],
    response: Mapping[str, Any],
    recovery: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the document to be sealed: JSON-safe and redacted; what fills a column is not repeated."""
    return {
        "message": said(error),
        "error_type": found.error_type,
        "details": error.details if isinstance(error, TechDeckError) else {},
        "context": sanitize_context(without_errors({key: facts[key] for key in facts if key not in _KNOWN})),
        "response": dict(response),
        "recovery": None if recovery is None else sanitize_context(dict(recovery)),
        "traceback": redact("\n".join(stack_of(error))),
    }


def said(error: BaseException) -> str:
    """Return the text of an error for logs and records: without its data, redacted and bounded."""
    return sanitize_message(text_of(error) or short_name(type(error)))


def classification_in_need(error: BaseException, facts: Mapping[str, Any]) -> Classification:
    """Return what can still be said of `error` after the handler failed. Never raises."""
    try:
        return classify(error, facts)
    except Exception:  # noqa: BLE001 - the handler failed because classifying did
        return Classification(
            error_code=InternalError.code,
            error_type=dotted_name(type(error)),
            severity=InternalError.severity,
            recoverable=False,
            retryable=False,
            retry_rule=RetryRule.NEVER,
            retry_at=None,
            http_status=InternalError.http_status,
            service=UNKNOWN,
            operation=UNKNOWN,
            hipaa_related=False,
            hipaa_notify=False,
        )
