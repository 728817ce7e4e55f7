"""The tree of errors, and everything that is true of each class.

    TechDeckError                   TECHDECK_ERROR          500
      AuthenticationError           AUTH_ERROR              401  HIPAA-related
      AuthorizationError            AUTHZ_ERROR             403  HIPAA-related
      ValidationError               VALIDATION_ERROR        400
      PipelineExecutionError        PIPELINE_ERROR          422
      DataProcessingError           DATA_PROCESSING_ERROR   422  HIPAA-related, notifies
      FileUploadError               FILE_UPLOAD_ERROR       413
      EncryptionError               ENCRYPTION_ERROR        500  HIPAA-related, notifies
      HIPAAComplianceError          HIPAA_COMPLIANCE_ERROR  403  HIPAA-related, notifies
      RateLimitError                RATE_LIMIT_ERROR        429
      ServiceUnavailableError       SERVICE_UNAVAILABLE     503
      ConnectionFailedError         CONNECTION_ERROR        503
      CircuitBreakerError           CIRCUIT_BREAKER_ERROR   503
      TimeoutError                  TIMEOUT_ERROR           504
      BiasDetectionError            BIAS_DETECTION_ERROR    422
      RetryExhaustedError           RETRY_EXHAUSTED         500
      FallbackFailedError           FALLBACK_FAILED         500
      WorkerLostError               WORKER_LOST             500
      InternalError                 INTERNAL_ERROR          500

An application adds its own classes: ``class LabError(TechDeckError, code="LAB_ERROR", http_status=502)``.
A subclass without a `code` is reported under its parent's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from techdeck_tasks.errors.base import (
    Message,
    RetryRule,
    Severity,
    TechDeckError,
    describe_error,
    is_ours,
)

When = datetime | timedelta | float
"""A moment (aware), or how far away it is (a timedelta, or seconds)."""


class AuthenticationError(
    TechDeckError,
    code="AUTH_ERROR",
    http_status=401,
    severity=Severity.HIGH,
    retry=RetryRule.NEVER,
    recoverable=False,
    hipaa_related=True,
):
    """Who the caller is could not be established."""

    def __init__(self, message: Message, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)


class AuthorizationError(
    TechDeckError,
    code="AUTHZ_ERROR",
    http_status=403,
    severity=Severity.HIGH,
    retry=RetryRule.NEVER,
    recoverable=False,
    hipaa_related=True,
):
    """The caller is known and may not do this."""

    def __init__(
        self, message: Message, user_id: str | None = None, required_permission: str | None = None
    ) -> None:
        super().__init__(message, details={"user_id": user_id, "required_permission": required_permission})


class ValidationError(
    TechDeckError, code="VALIDATION_ERROR", http_status=400, severity=Severity.LOW, retry=RetryRule.NEVER
):
    """The input is not what was asked for; its sender can mend it.

    Args:
        message: what is wrong, without the value.
        field: which part of the input.
        validation_rule: which rule it broke.
        value: the offending value. Only its type and size are kept: it may be a patient's.
    """

    def __init__(
        self,
        message: Message,
        field: str | None = None,
        validation_rule: str | None = None,
        value: Any = None,
    ) -> None:
        super().__init__(
            message,
            details={"field": field, "validation_rule": validation_rule, "value": _describe_value(value)},
        )


class PipelineExecutionError(TechDeckError, code="PIPELINE_ERROR", http_status=422):
    """A pipeline or one of its stages could not go on."""

    def __init__(
        self,
        message: Message,
        pipeline_id: str | None = None,
        stage: str | None = None,
        original_error: BaseException | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "pipeline_id": pipeline_id,
                "stage": stage,
                "original_error": describe_error(original_error),
            },
        )


class DataProcessingError(
    TechDeckError,
    code="DATA_PROCESSING_ERROR",
    http_status=422,
    severity=Severity.HIGH,
    hipaa_related=True,
    hipaa_notify=True,
):
    """Data could not be read or transformed."""

    def __init__(
        self,
        message: Message,
        operation: str | None = None,
        dataset_id: str | None = None,
        original_error: BaseException | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "operation": operation,
                "dataset_id": dataset_id,
                "original_error": describe_error(original_error),
            },
        )


class FileUploadError(TechDeckError, code="FILE_UPLOAD_ERROR", http_status=413, severity=Severity.LOW):
    """An upload was refused or broke off. `file_size` is in bytes."""

    def __init__(
        self,
        message: Message,
        filename: str | None = None,
        file_size: int | None = None,
        upload_id: str | None = None,
    ) -> None:
        super().__init__(
            message, details={"filename": filename, "file_size": file_size, "upload_id": upload_id}
        )


class EncryptionError(
    TechDeckError,
    code="ENCRYPTION_ERROR",
    severity=Severity.CRITICAL,
    retry=RetryRule.NEVER,
    recoverable=False,
    hipaa_related=True,
    hipaa_notify=True,
):
    """Something could not be encrypted, decrypted, signed or verified, or a key is missing."""

    def __init__(self, message: Message, encryption_type: str | None = None) -> None:
        super().__init__(message, details={"encryption_type": encryption_type})


class HIPAAComplianceError(
    TechDeckError,
    code="HIPAA_COMPLIANCE_ERROR",
    http_status=403,
    severity=Severity.CRITICAL,
    retry=RetryRule.NEVER,
    recoverable=False,
    hipaa_related=True,
    hipaa_notify=True,
):
    """Going on would break a safeguard that HIPAA asks for."""

    def __init__(
        self,
        message: Message,
        violation_type: str | None = None,
        compliance_requirement: str | None = None,
    ) -> None:
        super().__init__(
            message,
            details={"violation_type": violation_type, "compliance_requirement": compliance_requirement},
        )


class RateLimitError(
    TechDeckError, code="RATE_LIMIT_ERROR", http_status=429, severity=Severity.LOW, retry=RetryRule.ALWAYS
):
    """A limit on use is reached; `reset_time` is when it opens again."""

    def __init__(
        self,
        message: Message,
        limit_type: str | None = None,
        current_usage: int | None = None,
        limit: int | None = None,
        reset_time: When | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "limit_type": limit_type,
                "current_usage": current_usage,
                "limit": limit,
                "reset_time": _moment(reset_time),
            },
        )


class ServiceUnavailableError(
    TechDeckError, code="SERVICE_UNAVAILABLE", http_status=503, severity=Severity.HIGH, retry=RetryRule.ALWAYS
):
    """A service that is needed does not serve; `retry_after` is when it asked to be tried again."""

    def __init__(
        self, message: Message, service_name: str | None = None, retry_after: When | None = None
    ) -> None:
        super().__init__(message, details={"service_name": service_name, "retry_after": _moment(retry_after)})


class ConnectionFailedError(TechDeckError, code="CONNECTION_ERROR", http_status=503, retry=RetryRule.ALWAYS):
    """A connection could not be made, or broke."""

    def __init__(
        self,
        message: Message,
        service_name: str | None = None,
        original_error: BaseException | None = None,
    ) -> None:
        super().__init__(
            message,
            details={"service_name": service_name, "original_error": describe_error(original_error)},
        )


class CircuitBreakerError(TechDeckError, code="CIRCUIT_BREAKER_ERROR", http_status=503, retry=RetryRule.PARK):
    """A breaker is open and the call was not made; `retry_after` is when it may let one through."""

    def __init__(
        self,
        message: Message,
        service_name: str | None = None,
        failure_count: int | None = None,
        threshold: int | None = None,
        retry_after: When | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "service_name": service_name,
                "failure_count": failure_count,
                "threshold": threshold,
                "retry_after": _moment(retry_after),
            },
        )


class TimeoutError(TechDeckError, code="TIMEOUT_ERROR", http_status=504, retry=RetryRule.ALWAYS):  # noqa: A001 - the specification's name
    """An operation took longer than it may."""

    def __init__(
        self,
        message: Message,
        operation: str | None = None,
        timeout_seconds: float | None = None,
        elapsed_seconds: float | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "operation": operation,
                "timeout_seconds": timeout_seconds,
                "elapsed_seconds": elapsed_seconds,
            },
        )


class BiasDetectionError(
    TechDeckError,
    code="BIAS_DETECTION_ERROR",
    http_status=422,
    severity=Severity.HIGH,
    retry=RetryRule.NEVER,
    recoverable=False,
):
    """A finding: the measured bias exceeds its threshold. Not a failure of the measurement."""

    def __init__(
        self,
        message: Message,
        bias_type: str | None = None,
        threshold_exceeded: float | None = None,
        actual_value: float | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "bias_type": bias_type,
                "threshold_exceeded": threshold_exceeded,
                "actual_value": actual_value,
            },
        )


class RetryExhaustedError(
    TechDeckError,
    code="RETRY_EXHAUSTED",
    severity=Severity.HIGH,
    retry=RetryRule.NEVER,
    recoverable=False,
):
    """Every attempt failed; `details` keeps the last error's code, redacted text and id."""

    def __init__(
        self,
        message: Message,
        operation_name: str | None = None,
        last_error: BaseException | None = None,
        attempts: int | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "operation_name": operation_name,
                "attempts": attempts,
                "last_error": describe_error(last_error),
                "last_error_code": last_error.error_code if is_ours(last_error) else None,
                "last_error_id": last_error.error_id if is_ours(last_error) else None,
            },
        )


class FallbackFailedError(
    TechDeckError,
    code="FALLBACK_FAILED",
    severity=Severity.HIGH,
    retry=RetryRule.NEVER,
    recoverable=False,
):
    """The operation failed, and so did what should have stood in for it."""

    def __init__(
        self,
        message: Message,
        primary_error: BaseException | None = None,
        fallback_error: BaseException | None = None,
    ) -> None:
        super().__init__(
            message,
            details={
                "primary_error": describe_error(primary_error),
                "primary_error_code": primary_error.error_code if is_ours(primary_error) else None,
                "fallback_error": describe_error(fallback_error),
                "fallback_error_code": fallback_error.error_code if is_ours(fallback_error) else None,
            },
        )


class WorkerLostError(TechDeckError, code="WORKER_LOST", severity=Severity.HIGH, retry=RetryRule.ALWAYS):
    """The process that ran the task was killed: hard time limit, out of memory, signal."""

    def __init__(
        self,
        message: Message,
        operation: str | None = None,
        original_error: BaseException | None = None,
    ) -> None:
        super().__init__(
            message,
            details={"operation": operation, "original_error": describe_error(original_error)},
        )


class InternalError(TechDeckError, code="INTERNAL_ERROR", severity=Severity.HIGH, recoverable=False):
    """Anything that has no class of its own."""

    def __init__(self, message: Message, original_error: BaseException | None = None) -> None:
        super().__init__(message, details={"original_error": describe_error(original_error)})


def _describe_value(value: Any) -> str | None:
    if value is None:
        return None
    size = f", length {len(value)}" if isinstance(value, (str, bytes, list, tuple, dict, set)) else ""
    return f"[REDACTED {type(value).__name__}{size}]"


def _moment(when: When | None) -> str | None:
    if when is None:
        return None
    if isinstance(when, timedelta):
        return (datetime.now(UTC) + when).isoformat()
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(f"{when!r} has no time zone; pass an aware datetime, for example in UTC")
        return when.astimezone(UTC).isoformat()
    return (datetime.now(UTC) + timedelta(seconds=when)).isoformat()
