"""Turning a foreign exception into one of ours, under the same error_id."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from techdeck_tasks.errors.anatomy import attributes_of, is_open, traceback_of
from techdeck_tasks.errors.base import RetryRule, TechDeckError, describe_error, is_ours, lookup
from techdeck_tasks.errors.classification import classify
from techdeck_tasks.errors.guidance import guidance_for
from techdeck_tasks.errors.record import clear_value

_ID_ATTRIBUTE = "_techdeck_error_id"
_STAND_IN_ATTRIBUTE = "_techdeck_stand_in"
_STANDS_FOR_ATTRIBUTE = "_techdeck_stands_for"
_CONTEXT_DETAILS = ("pipeline_id", "stage", "dataset_id", "upload_id")


def as_techdeck_error(error: BaseException, context: Mapping[str, Any] | None = None) -> TechDeckError:
    """Return `error` itself if it is ours, else one of its code's class with the same error_id.

    The message is the code's general text; the foreign text goes redacted into `details`, for no caller.
    Where the foreign exception may not be tried again although its class may, `details.retry_rule` says so.
    """
    if is_ours(error):
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
    if is_ours(error):
        return error.error_id
    # Atomic, so two threads that handle one exception agree; no frozen __setattr__ is in the way.
    return str(dict.setdefault(attributes_of(error), _ID_ATTRIBUTE, str(uuid.uuid4())))


def approachable(error: BaseException) -> BaseException:
    """Return `error` itself, or one of ours in its place where it cannot be asked without running its code.

    Every look at such an exception may raise: `isinstance`, its cause, its traceback. What stands in its
    place has its error_id, its code and its traceback; `kind_of` tells the class.
    """
    if is_open(type(error)):
        return error
    attributes = attributes_of(error)
    stand_in = dict.get(attributes, _STAND_IN_ATTRIBUTE)
    if isinstance(stand_in, TechDeckError):
        return stand_in
    made = as_techdeck_error(error).with_traceback(traceback_of(error))
    attributes_of(made)[_STANDS_FOR_ATTRIBUTE] = type(error)
    dict.__setitem__(attributes, _STAND_IN_ATTRIBUTE, made)
    return made


def kind_of(error: BaseException) -> type[BaseException]:
    """Return the class of `error`, or of the one in whose place it stands."""
    return attributes_of(error).get(_STANDS_FOR_ATTRIBUTE) or type(error)
