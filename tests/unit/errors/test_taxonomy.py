"""The tree of errors: what every class promises, and that no way of copying loses anything."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend

from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.errors import (
    AuthenticationError,
    AuthorizationError,
    BiasDetectionError,
    CircuitBreakerError,
    ConnectionFailedError,
    DataProcessingError,
    EncryptionError,
    FallbackFailedError,
    FileUploadError,
    HIPAAComplianceError,
    InternalError,
    PipelineExecutionError,
    RateLimitError,
    RetryExhaustedError,
    RetryRule,
    ServiceUnavailableError,
    Severity,
    TechDeckError,
    TimeoutError,  # noqa: A004 - the specification's name
    ValidationError,
    WorkerLostError,
    as_techdeck_error,
    lookup,
    registered_codes,
)

MOMENT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

EXAMPLES: list[TechDeckError] = [
    TechDeckError("a", error_code="CUSTOM", details={"n": 1, "of": [1, 2.5, None, True]}, recoverable=False),
    AuthenticationError("a", details={"realm": "lab"}),
    AuthorizationError("a", user_id="u-1", required_permission="run:read"),
    ValidationError("a", field="age", validation_rule="ge", value="-3"),
    PipelineExecutionError("a", pipeline_id="p-1", stage="load", original_error=ValueError("b")),
    DataProcessingError("a", operation="join", dataset_id="d-1", original_error=KeyError("b")),
    FileUploadError("a", filename="x.csv", file_size=12, upload_id="up-1"),
    EncryptionError("a", encryption_type="AES-256-GCM"),
    HIPAAComplianceError("a", violation_type="disclosure", compliance_requirement="164.502"),
    RateLimitError("a", limit_type="minute", current_usage=11, limit=10, reset_time=MOMENT),
    ServiceUnavailableError("a", service_name="ehr", retry_after=MOMENT),
    ConnectionFailedError("a", service_name="ehr", original_error=OSError(111, "refused")),
    CircuitBreakerError("a", service_name="ehr", failure_count=5, threshold=5, retry_after=MOMENT),
    TimeoutError("a", operation="load", timeout_seconds=1.5, elapsed_seconds=2.25),
    BiasDetectionError("a", bias_type="parity", threshold_exceeded=0.1, actual_value=0.3),
    RetryExhaustedError("a", operation_name="load", last_error=ServiceUnavailableError("b"), attempts=4),
    FallbackFailedError("a", primary_error=TimeoutError("b"), fallback_error=ValueError("c")),
    WorkerLostError("a", operation="load", original_error=MemoryError()),
    InternalError("a", original_error=TypeError("b")),
    AuditUnavailableError("a"),
]


def through_pickle(error: TechDeckError) -> Any:
    return pickle.loads(pickle.dumps(error))


def through_json_results(error: TechDeckError) -> Any:
    backend = Backend(Celery(set_as_current=False))
    stored = json.loads(json.dumps(backend.prepare_exception(error, serializer="json")))
    return backend.exception_to_python(stored)


WAYS: list[Callable[[TechDeckError], Any]] = [through_pickle, copy.copy, copy.deepcopy, through_json_results]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_class_survives_with_every_field_and_the_same_error_id(
    error: TechDeckError, way: Callable[[TechDeckError], Any]
) -> None:
    rebuilt = way(error)
    assert type(rebuilt) is type(error)
    assert rebuilt.to_dict() == error.to_dict()
    assert rebuilt.error_id == error.error_id
    assert rebuilt.timestamp == error.timestamp
    assert rebuilt.timestamp.utcoffset() == timedelta(0)
    assert rebuilt == error
    assert hash(rebuilt) == hash(error)
    assert rebuilt.retry_at == error.retry_at
    assert str(rebuilt) == str(error) == "a"


def test_the_examples_cover_every_registered_code() -> None:
    ours = {code for code in registered_codes() if lookup(code).__module__.startswith("techdeck_tasks.")}
    assert {type(error).code for error in EXAMPLES} == ours


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_converted_foreign_error_survives_as_well(way: Callable[[TechDeckError], Any]) -> None:
    error = as_techdeck_error(ConnectionResetError("reset"), {"service": "ehr"})
    assert way(error).to_dict() == error.to_dict()


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_to_dict_has_the_keys_of_the_specification_and_is_json_safe(error: TechDeckError) -> None:
    as_dict = error.to_dict()
    assert list(as_dict) == ["error_id", "error_code", "message", "details", "recoverable", "timestamp"]
    assert json.loads(json.dumps(as_dict, allow_nan=False)) == as_dict


@pytest.mark.parametrize(
    ("cls", "code", "status", "recoverable"),
    [
        (AuthenticationError, "AUTH_ERROR", 401, False),
        (AuthorizationError, "AUTHZ_ERROR", 403, False),
        (ValidationError, "VALIDATION_ERROR", 400, True),
        (PipelineExecutionError, "PIPELINE_ERROR", 422, True),
        (DataProcessingError, "DATA_PROCESSING_ERROR", 422, True),
        (FileUploadError, "FILE_UPLOAD_ERROR", 413, True),
        (EncryptionError, "ENCRYPTION_ERROR", 500, False),
        (HIPAAComplianceError, "HIPAA_COMPLIANCE_ERROR", 403, False),
        (RateLimitError, "RATE_LIMIT_ERROR", 429, True),
        (ServiceUnavailableError, "SERVICE_UNAVAILABLE", 503, True),
        (CircuitBreakerError, "CIRCUIT_BREAKER_ERROR", 503, True),
        (TimeoutError, "TIMEOUT_ERROR", 504, True),
        (BiasDetectionError, "BIAS_DETECTION_ERROR", 422, False),
    ],
)
def test_codes_statuses_and_recoverability_are_those_of_the_specification(
    cls: type[TechDeckError], code: str, status: int, recoverable: bool
) -> None:
    assert (cls.code, cls.http_status, cls("a").recoverable) == (code, status, recoverable)


def test_a_duplicate_code_fails_where_the_class_is_defined() -> None:
    with pytest.raises(TypeError, match=r"'AUTH_ERROR' of .*AgainError is taken by AuthenticationError"):

        class AgainError(TechDeckError, code="AUTH_ERROR"):
            pass


def test_an_application_adds_its_own_class() -> None:
    class LabError(TechDeckError, code="LAB_ERROR", http_status=502, retry=RetryRule.ALWAYS):
        pass

    assert lookup("LAB_ERROR") is LabError
    assert (LabError("a").error_code, LabError.http_status, LabError.severity) == (
        "LAB_ERROR",
        502,
        Severity.MEDIUM,
    )


def test_an_unknown_code_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        lookup("NO_SUCH_CODE")


def test_severities_are_ordered() -> None:
    assert [severity.rank for severity in Severity] == [0, 1, 2, 3]


def test_a_validation_error_keeps_the_type_and_size_of_the_value_and_not_the_value() -> None:
    error = ValidationError("wrong", field="name", value="Jane Roe")
    assert error.details["value"] == "[REDACTED str, length 8]"
    assert "Jane" not in json.dumps(error.to_dict())


def test_messages_and_details_are_redacted_when_the_error_is_made() -> None:
    error = DataProcessingError("password=hunter2", original_error=ValueError("api_key=abcdef123456"))
    assert "hunter2" not in str(error.args)
    assert "abcdef123456" not in str(error.args)


def test_an_exception_among_the_details_is_told_without_its_data() -> None:
    class ChattyError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = TechDeckError("a", details={"cause": ChattyError()})
    assert error.details["cause"] == "ChattyError: (its text could not be read)"


def test_exhausted_retries_keep_the_last_errors_code_and_id() -> None:
    last = ServiceUnavailableError("down")
    details = RetryExhaustedError("gave up", "load", last_error=last, attempts=3).details
    assert details["last_error_code"] == "SERVICE_UNAVAILABLE"
    assert details["last_error_id"] == last.error_id


@pytest.mark.parametrize("when", [timedelta(seconds=30), 30, 30.0])
def test_a_distance_becomes_a_moment(when: timedelta | float) -> None:
    before = datetime.now(UTC)
    moment = ServiceUnavailableError("a", retry_after=when).retry_at
    assert moment is not None
    assert before + timedelta(seconds=29) < moment < before + timedelta(seconds=60)


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        RateLimitError("a", reset_time=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize("said", ["soon", "", 5, None])
def test_an_applications_own_retry_after_detail_is_no_moment(said: object) -> None:
    assert TechDeckError("a", details={"retry_after": said}).retry_at is None


def test_what_a_caller_hangs_on_an_error_is_not_pickled_with_it() -> None:
    error = TechDeckError("a")
    error.payload = object()  # type: ignore[attr-defined]
    assert not hasattr(through_pickle(error), "payload")
