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

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, ClassVar, Self

from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import sanitize_context, sanitize_message

Message = str | Mapping[str, Any]
"""An error's text, or, where an error is rebuilt, what `TechDeckError.to_dict` gave."""

When = datetime | timedelta | float
"""A moment (aware), or how far away it is (a timedelta, or seconds)."""


class Severity(StrEnum):
    """How bad an error is; members compare in that order."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for low to 3 for critical."""
        return list(Severity).index(self)


class RetryRule(Enum):
    """Whether an error of a class may be tried again, before attempts and time are considered."""

    NEVER = "never"
    ALWAYS = "always"
    BY_PATTERN = "by_pattern"
    """Where the message has one of the specification's words for a passing trouble."""
    PARK = "park"
    """A breaker is open: wait for it without spending an attempt."""


_registry: dict[str, type[TechDeckError]] = {}


def lookup(code: str) -> type[TechDeckError]:
    """Return the class registered for `code`.

    Raises:
        KeyError: no class has that code.
    """
    return _registry[code]


def registered_codes() -> tuple[str, ...]:
    """Return every code, in the order of registration."""
    return tuple(_registry)


class TechDeckError(Exception):
    """Base of every error of this package.

    The message and the details are redacted when the error is made, so that no later path (pickle, a result
    store, a log, a response) can carry more. ``cls(*error.args)`` rebuilds an equal error with the same
    `error_id`: pickle, `copy` and Celery's JSON result back end all rebuild exceptions that way.

    Args:
        message: what went wrong, the limit and the remedy; never the data. Kept to 500 characters.
        error_code: replaces the class's code on this one error.
        details: facts for the log, JSON-safe; redacted.
        recoverable: replaces the class's verdict on this one error.

    Attributes:
        error_id: UUID of this error; the same in response, audit row, metrics, header and log line.
        timestamp: when it was made, aware, UTC.
    """

    code: ClassVar[str] = "TECHDECK_ERROR"
    http_status: ClassVar[int] = 500
    severity: ClassVar[Severity] = Severity.MEDIUM
    retry_rule: ClassVar[RetryRule] = RetryRule.BY_PATTERN
    default_recoverable: ClassVar[bool] = True
    hipaa_related: ClassVar[bool] = False
    hipaa_notify: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        code: str | None = None,
        http_status: int | None = None,
        severity: Severity | None = None,
        retry: RetryRule | None = None,
        recoverable: bool | None = None,
        hipaa_related: bool | None = None,
        hipaa_notify: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        declared = {
            "http_status": http_status,
            "severity": severity,
            "retry_rule": retry,
            "default_recoverable": recoverable,
            "hipaa_related": hipaa_related,
            "hipaa_notify": hipaa_notify,
        }
        for name, value in declared.items():
            if value is not None:
                setattr(cls, name, value)
        if code is not None:
            cls.code = code
            _register(cls)

    def __init__(
        self,
        message: Message,
        *,
        error_code: str | None = None,
        details: Mapping[str, Any] | None = None,
        recoverable: bool | None = None,
    ) -> None:
        if isinstance(message, Mapping):
            self._restore(message)
        else:
            self.message = sanitize_message(message)
            self.error_code = error_code or self.code
            plain = {name: without_data(value) for name, value in (details or {}).items()}
            self.details: dict[str, Any] = sanitize_context(plain)
            self.recoverable = self.default_recoverable if recoverable is None else recoverable
            self.timestamp = datetime.now(UTC)
            self.error_id = str(uuid.uuid4())
        super().__init__(self.to_dict())

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.message = sanitize_message(str(state["message"]))
        self.error_code = str(state["error_code"])
        self.details = dict(state["details"])
        self.recoverable = bool(state["recoverable"])
        self.timestamp = datetime.fromisoformat(state["timestamp"])
        self.error_id = str(state["error_id"])

    @property
    def retry_at(self) -> datetime | None:
        """The moment before which the other side asked not to be tried again; None where it said nothing."""
        said = self.details.get("retry_after") or self.details.get("reset_time")
        try:
            moment = datetime.fromisoformat(said) if isinstance(said, str) else None
        except ValueError:  # an application's own detail of that name
            return None
        return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-safe data; `timestamp` is ISO 8601 with its offset."""
        return {
            "error_id": self.error_id,
            "error_code": self.error_code,
            "message": self.message,
            "details": self.details,
            "recoverable": self.recoverable,
            "timestamp": self.timestamp.isoformat(),
        }

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        identity = f"error_code={self.error_code!r}, error_id={self.error_id!r}"
        return f"{type(self).__name__}({self.message!r}, {identity})"

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and isinstance(other, TechDeckError)
            and other.to_dict() == self.to_dict()
        )

    def __hash__(self) -> int:
        return hash(self.error_id)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # Exception's own __reduce__ would also copy __dict__, and with it whatever a caller hung there.
        return type(self), self.args


def _register(cls: type[TechDeckError]) -> None:
    taken = _registry.get(cls.code)
    # A reloaded module defines the same class again; that is no clash.
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(
            f"error code {cls.code!r} of {cls.__qualname__} is taken by {taken.__qualname__}; choose another"
        )
    _registry[cls.code] = cls


_registry[TechDeckError.code] = TechDeckError


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
                "last_error_code": getattr(last_error, "error_code", None),
                "last_error_id": getattr(last_error, "error_id", None),
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
                "primary_error_code": getattr(primary_error, "error_code", None),
                "fallback_error": describe_error(fallback_error),
                "fallback_error_code": getattr(fallback_error, "error_code", None),
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


def describe_error(error: BaseException | None) -> str | None:
    """Return `error` as ``Type: message``, redacted and bounded; None for None. Never raises."""
    if error is None:
        return None
    text = text_of(error)
    return sanitize_message(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def without_data(value: Any) -> Any:
    """Return a fact of a context as it is, an exception among them as `describe_error` tells it."""
    return describe_error(value) if isinstance(value, BaseException) else value


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
