"""Turning a foreign exception into one of ours, under the same error_id."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from techdeck_tasks.errors.base import RetryRule, TechDeckError, describe_error, lookup
from techdeck_tasks.errors.classification import classify
from techdeck_tasks.errors.guidance import guidance_for
from techdeck_tasks.errors.record import clear_value

_ID_ATTRIBUTE = "_techdeck_error_id"
_CONTEXT_DETAILS = ("pipeline_id", "stage", "dataset_id", "upload_id")


def as_techdeck_error(error: BaseException, context: Mapping[str, Any] | None = None) -> TechDeckError:
    """Return `error` itself if it is ours, else one of its code's class with the same error_id.

    The message is the code's general text; the foreign text goes redacted into `details`, for no caller.
    Where the foreign exception may not be tried again although its class may, `details.retry_rule` says so.
    """
    if isinstance(error, TechDeckError):
        return error
    found = classify(error, context)
    cls = lookup(found.error_code)
    rule = found.retry_rule if found.retryable else RetryRule.NEVER
    details: dict[str, Any] = {
        "original_type": found.error_type,
        "original_error": describe_error(error),
        "service_name": clear_value(found.service),
        "operation": clear_value(found.operation),
    }
    if rule is not cls.retry_rule:
        details["retry_rule"] = rule.value
    if found.retry_at is not None:
        name = "reset_time" if found.error_code == "RATE_LIMIT_ERROR" else "retry_after"
        details[name] = found.retry_at.isoformat()
    for name in _CONTEXT_DETAILS:
        if context is not None and context.get(name) is not None:
            details[name] = clear_value(str(context[name]))
    return cls(
        {
            "error_id": error_id_of(error),
            "error_code": found.error_code,
            "message": guidance_for(found.error_code).message,
            "details": details,
            "recoverable": found.recoverable,
            "timestamp": datetime.now(UTC).isoformat(),
        }
    )


def error_id_of(error: BaseException) -> str:
    """Return the one id of `error`; of a foreign exception it is minted once and stays with it."""
    if isinstance(error, TechDeckError):
        return error.error_id
    minted = str(uuid.uuid4())
    try:
        # Atomic, so two threads that handle one exception agree; no frozen __setattr__ is in the way.
        return str(error.__dict__.setdefault(_ID_ATTRIBUTE, minted))
    except Exception:  # noqa: BLE001 - a __dict__ of its own making may raise anything
        return minted
