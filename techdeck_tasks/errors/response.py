"""What a caller is told: pure functions from a classified error to the body of an answer."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from techdeck_tasks.errors.base import TechDeckError, lookup
from techdeck_tasks.errors.classification import Classification
from techdeck_tasks.errors.conversion import error_id_of
from techdeck_tasks.errors.guidance import guidance_for
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import sanitize_message

Response = dict[str, Any]
"""The body of an answer, JSON-safe."""

PROBLEM_JSON = "application/problem+json"

_SUPPORT_REFERENCE_LENGTH = 8
_FALLBACK_STATUS = 500
_DEFAULT_RETRY_AFTER = timedelta(seconds=30)
_STATUS_WITH_RETRY_AFTER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def build_response(
    error: BaseException,
    classification: Classification,
    *,
    documentation_base_url: str,
    timestamp: datetime,
    recovery: Mapping[str, Any] | None = None,
) -> Response:
    """Return the specification's response to an error, JSON-safe.

    Our own messages appear redacted. A foreign exception's text never appears: its code's general text does.

    Args:
        error: the error as it was handled.
        classification: what it is.
        documentation_base_url: where docs/errors.md is served; a code's section is its anchor.
        timestamp: when it was handled, aware.
        recovery: what the recovery said, with the specification's keys; None where none was attempted.
    """
    error_id = error_id_of(error)
    guidance = guidance_for(classification.error_code)
    ours = isinstance(error, TechDeckError)
    response: dict[str, Any] = {
        "error_id": error_id,
        "error_code": classification.error_code,
        "message": sanitize_message(text_of(error)) if ours else guidance.message,
        "timestamp": timestamp.isoformat(),
        "recoverable": classification.recoverable,
    }
    if recovery is not None:
        response["recovery_attempted"] = True
        response["recovery_successful"] = bool(recovery.get("successful", False))
        response["recovery_message"] = sanitize_message(str(recovery.get("message", "")))
    response["user_guidance"] = guidance.advice
    response["request_tracking"] = {
        "retry_allowed": classification.recoverable,
        "support_reference": support_reference(error_id),
        "documentation_url": documentation_url(documentation_base_url, classification.error_code),
    }
    return response


def fail_safe_response(error_id: str, *, timestamp: datetime) -> Response:
    """Return the answer for when the handler itself failed. The id stays that of the error being handled."""
    return {
        "error_id": error_id,
        "error_code": "INTERNAL_ERROR",
        "message": guidance_for("INTERNAL_ERROR").message,
        "timestamp": timestamp.isoformat(),
        "recoverable": False,
        "fail_safe_mode": True,
        "support_reference": support_reference(error_id),
    }


def problem_details(response: Mapping[str, Any], status: int) -> dict[str, Any]:
    """Return `response` as problem details (RFC 9457); the specification's keys are extension members."""
    tracking = response.get("request_tracking") or {}
    return {
        "type": tracking.get("documentation_url", "about:blank"),
        "title": guidance_for(response["error_code"]).title,
        "status": status,
        "detail": response["message"],
        "instance": f"urn:uuid:{response['error_id']}",
        **{key: value for key, value in response.items() if key != "message"},
    }


def as_http(
    response: Response, retry_at: datetime | None, request_id: str, now: datetime
) -> tuple[int, dict[str, str], Response]:
    """Return status, headers and body of a response over HTTP.

    Args:
        response: the body.
        retry_at: the moment before which a caller should not try again, aware; None: 30 s from now.
        request_id: a valid one.
        now: the present, aware.
    """
    status = http_status_of(response["error_code"])
    headers = {
        "X-Error-ID": response["error_id"],
        "X-Request-ID": request_id,
        "Cache-Control": "no-cache, no-store, must-revalidate",
    }
    if status in _STATUS_WITH_RETRY_AFTER:
        wait = _DEFAULT_RETRY_AFTER if retry_at is None else retry_at - now
        headers["Retry-After"] = str(max(1, math.ceil(wait.total_seconds())))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 section 11.6.1: a 401 must name a challenge
    return status, headers, response


def http_status_of(error_code: str) -> int:
    """Return the HTTP status of a code; 500 of one that is not registered."""
    try:
        return lookup(error_code).http_status
    except KeyError:
        return _FALLBACK_STATUS


def documentation_url(base_url: str, error_code: str) -> str:
    """Return the address of the code's section: its anchor is the code in lower case."""
    return f"{base_url}#{error_code.lower()}"


def support_reference(error_id: str) -> str:
    """Return what a user reads out to support: the first eight characters of the error_id."""
    return error_id[:_SUPPORT_REFERENCE_LENGTH]


def valid_request_id(value: object) -> str:
    """Return a caller's request id where it is 1 to 128 of ``A-Z a-z 0-9 . _ -``, else a fresh UUID.

    Anything else could split a header, forge a log line or fill a record.
    """
    if isinstance(value, str) and _REQUEST_ID.fullmatch(value):
        return value
    return str(uuid.uuid4())
