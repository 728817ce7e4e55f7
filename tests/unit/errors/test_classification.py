"""What an error is said to be: ours, and foreign ones along their MRO."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import json
import pickle
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import httpx
import kombu.exceptions
import polars.exceptions
import psycopg
import pydantic_core
import pytest
import redis
import requests
import sqlalchemy.exc
import urllib3
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded
from billiard.exceptions import WorkerLostError as BilliardWorkerLostError
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError
from celery.utils.serialization import UnpickleableExceptionWrapper
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from techdeck_tasks.errors import (
    AuthorizationError,
    CircuitBreakerError,
    HIPAAComplianceError,
    PipelineExecutionError,
    RateLimitError,
    RetryRule,
    ServiceUnavailableError,
    Severity,
    TechDeckError,
    ValidationError,
    Verdict,
    as_techdeck_error,
    classify,
    error_id_of,
    is_control_flow,
    lookup,
    register_mapping,
    registered_codes,
)
from techdeck_tasks.errors.classification import RETRYABLE_PATTERNS, Classifier
from techdeck_tasks.errors.recognition import Recognition
from techdeck_tasks.errors.verdict import Target


def foreign(name: str, *bases: type[BaseException], module: str = "lab.client") -> type[Exception]:
    return type(name, bases or (Exception,), {"__module__": module})


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "https://ehr.example/")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError("x", request=request, response=response)


def replied(status: int, **headers: str) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    return requests.HTTPError("x", response=response)


def from_aws(code: str, status: int, **headers: str) -> BaseException:
    error = foreign("ClientError", module="botocore.exceptions")("x")
    error.response = {  # type: ignore[attr-defined]
        "Error": {"Code": code},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return error


NEVER, ALWAYS = RetryRule.NEVER, RetryRule.ALWAYS

CASES: list[tuple[BaseException, str, bool]] = [
    # builtins and the operating system
    (ValueError("x"), "INTERNAL_ERROR", False),
    (KeyError("x"), "INTERNAL_ERROR", False),
    (MemoryError(), "WORKER_LOST", True),
    (RecursionError("x"), "INTERNAL_ERROR", False),
    (ModuleNotFoundError("x"), "INTERNAL_ERROR", False),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "VALIDATION_ERROR", False),
    (json.JSONDecodeError("x", "{", 0), "VALIDATION_ERROR", False),
    (OSError(errno.ENOSPC, "x"), "SERVICE_UNAVAILABLE", True),
    (OSError(errno.EMFILE, "x"), "SERVICE_UNAVAILABLE", True),
    (OSError(errno.EACCES, "x"), "AUTHZ_ERROR", False),
    (OSError(errno.ENOENT, "x"), "VALIDATION_ERROR", False),
    (OSError(errno.ECONNREFUSED, "x"), "CONNECTION_ERROR", True),
    (OSError(errno.EHOSTUNREACH, "x"), "CONNECTION_ERROR", True),
    (OSError(errno.ETIMEDOUT, "x"), "TIMEOUT_ERROR", True),
    (OSError(errno.EFBIG, "x"), "FILE_UPLOAD_ERROR", False),
    (OSError("x"), "INTERNAL_ERROR", False),
    (TimeoutError("x"), "TIMEOUT_ERROR", True),
    (ConnectionResetError("x"), "CONNECTION_ERROR", True),
    (socket.gaierror(socket.EAI_AGAIN, "x"), "CONNECTION_ERROR", True),
    (ssl.SSLError("x"), "CONNECTION_ERROR", True),
    (ssl.SSLCertVerificationError("x"), "CONNECTION_ERROR", False),
    (asyncio.IncompleteReadError(b"", 1), "CONNECTION_ERROR", True),
    (asyncio.QueueFull(), "SERVICE_UNAVAILABLE", True),
    (concurrent.futures.CancelledError(), "SERVICE_UNAVAILABLE", True),
    (concurrent.futures.BrokenExecutor("x"), "WORKER_LOST", True),
    # Celery, Kombu, billiard
    (SoftTimeLimitExceeded(), "TIMEOUT_ERROR", True),
    (TimeLimitExceeded(3), "WORKER_LOST", True),
    (BilliardWorkerLostError("x"), "WORKER_LOST", True),
    (Terminated(15), "WORKER_LOST", False),
    (TaskRevokedError("x"), "INTERNAL_ERROR", False),
    (kombu.exceptions.OperationalError("x"), "CONNECTION_ERROR", True),
    (
        UnpickleableExceptionWrapper("redis.exceptions", "BusyLoadingError", ["x"]),
        "SERVICE_UNAVAILABLE",
        True,
    ),
    # Redis
    (redis.ConnectionError("x"), "CONNECTION_ERROR", True),
    (redis.TimeoutError("x"), "TIMEOUT_ERROR", True),
    (redis.AuthenticationError("x"), "AUTH_ERROR", False),
    (redis.ResponseError("OOM command not allowed"), "SERVICE_UNAVAILABLE", True),
    (redis.ResponseError("NOAUTH Authentication required."), "AUTH_ERROR", False),
    (redis.ResponseError("WRONGTYPE Operation against a key"), "INTERNAL_ERROR", False),
    (redis.WatchError("x"), "SERVICE_UNAVAILABLE", True),
    # PostgreSQL by SQLSTATE
    (psycopg.errors.ConnectionFailure("x"), "CONNECTION_ERROR", True),
    (psycopg.errors.SerializationFailure("x"), "SERVICE_UNAVAILABLE", True),
    (psycopg.errors.DeadlockDetected("x"), "SERVICE_UNAVAILABLE", True),
    (psycopg.errors.DiskFull("x"), "SERVICE_UNAVAILABLE", True),
    (psycopg.errors.TooManyConnections("x"), "SERVICE_UNAVAILABLE", True),
    (psycopg.errors.AdminShutdown("x"), "SERVICE_UNAVAILABLE", True),
    (psycopg.errors.QueryCanceled("x"), "TIMEOUT_ERROR", True),
    (psycopg.errors.LockNotAvailable("x"), "SERVICE_UNAVAILABLE", True),
    (psycopg.errors.InvalidPassword("x"), "AUTH_ERROR", False),
    (psycopg.errors.InsufficientPrivilege("x"), "AUTHZ_ERROR", False),
    (psycopg.errors.UniqueViolation("x"), "VALIDATION_ERROR", False),
    (psycopg.errors.NumericValueOutOfRange("x"), "DATA_PROCESSING_ERROR", False),
    (psycopg.errors.UndefinedTable("connection does not exist"), "INTERNAL_ERROR", False),
    (psycopg.errors.DataCorrupted("x"), "INTERNAL_ERROR", False),
    (psycopg.OperationalError("connection refused"), "CONNECTION_ERROR", True),
    (psycopg.OperationalError("FATAL: password authentication failed for user"), "AUTH_ERROR", False),
    (psycopg.OperationalError('FATAL: database "x" does not exist'), "CONNECTION_ERROR", False),
    (
        sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.errors.DeadlockDetected("x")),
        "SERVICE_UNAVAILABLE",
        True,
    ),
    (
        sqlalchemy.exc.DBAPIError("SELECT 1", {}, Exception("x"), connection_invalidated=True),
        "CONNECTION_ERROR",
        True,
    ),
    (sqlalchemy.exc.TimeoutError("QueuePool limit"), "SERVICE_UNAVAILABLE", True),
    (sqlalchemy.exc.ArgumentError("x"), "INTERNAL_ERROR", False),
    # HTTP clients by status
    (answered(401), "AUTH_ERROR", False),
    (answered(403), "AUTHZ_ERROR", False),
    (answered(404), "VALIDATION_ERROR", False),
    (answered(408), "TIMEOUT_ERROR", True),
    (answered(413), "FILE_UPLOAD_ERROR", False),
    (answered(422), "VALIDATION_ERROR", False),
    (answered(429), "RATE_LIMIT_ERROR", True),
    (answered(500), "SERVICE_UNAVAILABLE", True),
    (answered(501), "INTERNAL_ERROR", False),
    (answered(503), "SERVICE_UNAVAILABLE", True),
    (answered(504), "TIMEOUT_ERROR", True),
    (replied(429), "RATE_LIMIT_ERROR", True),
    (replied(400), "VALIDATION_ERROR", False),
    (requests.ConnectionError("x"), "CONNECTION_ERROR", True),
    (requests.exceptions.SSLError("x"), "CONNECTION_ERROR", False),
    (requests.ReadTimeout("x"), "TIMEOUT_ERROR", True),
    (httpx.ConnectError("x"), "CONNECTION_ERROR", True),
    (httpx.PoolTimeout("x"), "TIMEOUT_ERROR", True),
    (httpx.InvalidURL("x"), "VALIDATION_ERROR", False),
    (
        urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError("x")),  # type: ignore[arg-type]
        "CONNECTION_ERROR",
        False,
    ),
    (aiohttp.ClientResponseError(None, (), status=503), "SERVICE_UNAVAILABLE", True),  # type: ignore[arg-type]
    (aiohttp.ServerDisconnectedError(), "CONNECTION_ERROR", True),
    (from_aws("SlowDown", 503), "RATE_LIMIT_ERROR", True),
    (from_aws("AccessDenied", 403), "AUTHZ_ERROR", False),
    (from_aws("ExpiredToken", 400), "AUTH_ERROR", False),
    (from_aws("NoSuchKey", 404), "VALIDATION_ERROR", False),
    (from_aws("InternalError", 500), "SERVICE_UNAVAILABLE", True),
    # data
    (polars.exceptions.ShapeError("x"), "DATA_PROCESSING_ERROR", False),
    (InvalidTag(), "ENCRYPTION_ERROR", False),
    (pydantic_core.PydanticCustomError("a", "b"), "VALIDATION_ERROR", False),
]


@pytest.mark.parametrize(
    ("error", "code", "retryable"), CASES, ids=[f"{type(case[0]).__name__}-{case[1]}" for case in CASES]
)
def test_foreign_exceptions_are_what_their_library_means(
    error: BaseException, code: str, retryable: bool
) -> None:
    found = classify(error)
    assert (found.error_code, found.retryable) == (code, retryable)
    cls = lookup(code)
    assert (found.severity, found.recoverable, found.http_status) == (
        cls.severity,
        cls.default_recoverable,
        cls.http_status,
    )
    assert (found.hipaa_related, found.hipaa_notify) == (cls.hipaa_related, cls.hipaa_notify)


@pytest.mark.parametrize("pattern", RETRYABLE_PATTERNS)
def test_an_unmapped_exception_is_internal_and_retried_by_the_specifications_words_only(pattern: str) -> None:
    kind = foreign("VendorError")
    found = classify(kind(f"the {pattern.upper()} is gone"))
    assert (found.error_code, found.retry_rule, found.retryable) == (
        "INTERNAL_ERROR",
        RetryRule.BY_PATTERN,
        True,
    )
    assert not classify(kind("it broke")).retryable
    assert found.error_type == "lab.client.VendorError"
    assert not found.recoverable


def test_a_subclass_of_an_application_is_what_its_base_is() -> None:
    assert classify(foreign("LabGone", ConnectionError)("x")).error_code == "CONNECTION_ERROR"


def test_a_librarys_base_wins_over_a_builtin_one() -> None:
    kind = foreign("Odd", ValueError, redis.ConnectionError)
    assert classify(kind("x")).error_code == "CONNECTION_ERROR"


def test_an_exception_rebuilt_by_name_only_is_still_recognised() -> None:
    """Celery's JSON back end makes a class of that module and name where it cannot import the original."""
    assert (
        classify(foreign("ReadTimeoutError", module="botocore.exceptions")("x")).error_code == "TIMEOUT_ERROR"
    )


# -- when to try again -------------------------------------------------------------------------------


def wait_of(error: BaseException) -> timedelta:
    moment = classify(error).retry_at
    assert moment is not None
    assert moment.tzinfo is UTC
    return moment - datetime.now(UTC)


@pytest.mark.parametrize("make", [answered, replied])
def test_retry_after_in_seconds_becomes_a_moment(make: Any) -> None:
    assert timedelta(seconds=110) < wait_of(make(503, **{"Retry-After": "120"})) <= timedelta(seconds=120)


def test_retry_after_as_a_date_becomes_a_moment() -> None:
    moment = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    header = format_datetime(moment, usegmt=True)
    assert classify(answered(429, **{"Retry-After": header})).retry_at == moment


def test_a_rate_limits_reset_is_read_as_distance_and_as_epoch() -> None:
    epoch = str(int((datetime.now(UTC) + timedelta(minutes=5)).timestamp()))
    assert wait_of(answered(429, **{"X-RateLimit-Reset": epoch})) > timedelta(minutes=4)
    assert wait_of(answered(429, **{"RateLimit-Reset": "300"})) > timedelta(minutes=4)


def test_aiohttp_and_aws_answers_tell_it_too() -> None:
    headers = CIMultiDictProxy(CIMultiDict({"Retry-After": "60"}))
    assert wait_of(aiohttp.ClientResponseError(None, (), status=429, headers=headers)) > timedelta(  # type: ignore[arg-type]
        seconds=50
    )
    assert wait_of(from_aws("SlowDown", 503, **{"retry-after": "60"})) > timedelta(seconds=50)


@given(st.text(max_size=40))
def test_no_retry_after_breaks_the_classification(value: str) -> None:
    error = replied(429)
    assert error.response is not None
    error.response.headers["Retry-After"] = value
    moment = classify(error).retry_at
    assert moment is None or moment <= datetime.now(UTC) + timedelta(days=31)


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "1e400", "soon", "", "Mon, 99 Foo 2020"])
def test_a_senseless_retry_after_counts_as_absent(value: str) -> None:
    assert classify(replied(429, **{"Retry-After": value})).retry_at is None


def test_a_retry_after_beyond_thirty_days_is_shortened() -> None:
    assert wait_of(answered(429, **{"Retry-After": "999999999"})) <= timedelta(days=30)


# -- ours --------------------------------------------------------------------------------------------


def test_ours_are_classified_by_their_class() -> None:
    moment = datetime.now(UTC) + timedelta(minutes=1)
    found = classify(RateLimitError("x", reset_time=moment))
    assert (found.error_code, found.retryable, found.retry_at) == ("RATE_LIMIT_ERROR", True, moment)
    assert classify(CircuitBreakerError("x")).retry_rule is RetryRule.PARK
    assert not classify(AuthorizationError("connection")).retryable
    assert classify(PipelineExecutionError("temporary trouble")).retryable
    assert not classify(PipelineExecutionError("broken")).retryable


def test_the_message_of_the_original_counts_for_the_pattern() -> None:
    assert classify(PipelineExecutionError("failed", original_error=OSError("resource busy"))).retryable


def test_an_error_that_carries_another_code_is_what_that_code_is() -> None:
    found = classify(TechDeckError("x", error_code="VALIDATION_ERROR", recoverable=False))
    assert (found.http_status, found.severity, found.retryable, found.recoverable) == (
        400,
        Severity.LOW,
        False,
        False,
    )
    assert classify(TechDeckError("x", error_code="NOT_REGISTERED")).http_status == 500


@pytest.mark.parametrize(
    ("context", "service", "operation"),
    [
        (None, "unknown", "unknown"),
        ({"service": "ehr", "operation": "load", "task_name": "t"}, "ehr", "load"),
        ({"task_name": "lab.load"}, "unknown", "lab.load"),
        ({"operation_type": "file_upload"}, "unknown", "file_upload"),
    ],
)
def test_service_and_operation_come_from_the_context(
    context: Mapping[str, Any] | None, service: str, operation: str
) -> None:
    found = classify(ValueError("x"), context)
    assert (found.service, found.operation) == (service, operation)


def test_an_errors_own_service_stands_in_for_a_missing_one() -> None:
    assert classify(ServiceUnavailableError("x", service_name="ehr")).service == "ehr"


# -- groups ------------------------------------------------------------------------------------------


def test_a_group_is_its_worst_member_and_retried_only_if_every_member_is() -> None:
    group = ExceptionGroup(
        "g", [ConnectionError("x"), ExceptionGroup("h", [HIPAAComplianceError("y")]), ValidationError("z")]
    )
    found = classify(group)
    assert found.error_code == "HIPAA_COMPLIANCE_ERROR"
    assert (found.severity, found.retryable, found.recoverable) == (Severity.CRITICAL, False, False)
    assert found.hipaa_notify
    assert found.error_type == "builtins.ExceptionGroup"
    assert classify(ExceptionGroup("g", [ConnectionError(), TimeoutError()])).retryable


def test_a_group_waits_for_its_last_member() -> None:
    soon, late = (datetime.now(UTC) + timedelta(minutes=n) for n in (1, 2))
    members = [ServiceUnavailableError("x", retry_after=late), RateLimitError("y", reset_time=soon)]
    assert classify(ExceptionGroup("g", members)).retry_at == late


def test_a_deep_group_is_classified() -> None:
    group: Exception = ValueError("x")
    for _ in range(500):
        group = ExceptionGroup("g", [group])
    assert classify(group).error_code == "INTERNAL_ERROR"


# -- one id, and conversion --------------------------------------------------------------------------


def test_a_foreign_exception_keeps_one_id() -> None:
    error = ValueError("x")
    assert error_id_of(error) == error_id_of(error)
    assert error_id_of(pickle.loads(pickle.dumps(error))) == error_id_of(error)
    assert error_id_of(ValueError("x")) != error_id_of(error)
    ours = TechDeckError("x")
    assert error_id_of(ours) == ours.error_id


def test_threads_that_handle_one_exception_agree_on_its_id() -> None:
    error = ValueError("x")
    gate = threading.Barrier(8)

    def ask() -> str:
        gate.wait(5)
        return error_id_of(error)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len({future.result() for future in [pool.submit(ask) for _ in range(8)]}) == 1


def test_an_exception_that_refuses_attributes_has_an_id_nevertheless() -> None:
    class FrozenError(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error = FrozenError("x")
    assert error_id_of(error) == error_id_of(error)


def test_ours_pass_the_conversion_unchanged() -> None:
    error = TechDeckError("x")
    assert as_techdeck_error(error) is error


@pytest.mark.parametrize("error", [case[0] for case in CASES], ids=lambda error: type(error).__name__)
def test_a_converted_error_is_classified_as_its_original_was(error: BaseException) -> None:
    context = {"service": "ehr", "operation": "load", "pipeline_id": "p"}
    before = classify(error, context)
    converted = as_techdeck_error(error, context)
    after = classify(converted, context)
    assert type(converted) is lookup(before.error_code)
    assert converted.error_id == error_id_of(error)
    assert replace(after, retry_rule=before.retry_rule, retry_at=before.retry_at) == before


def test_a_converted_error_keeps_the_foreign_text_for_the_log_only() -> None:
    converted = as_techdeck_error(answered(503, **{"Retry-After": "60"}))
    assert converted.message == "A service that is needed is temporarily unavailable."
    assert converted.details["original_error"] == "HTTPStatusError: x"
    assert converted.retry_at is not None


# -- mappings of others ------------------------------------------------------------------------------


def a_classifier(
    mappings: Mapping[str, Target] | None = None, offered: Iterable[Mapping[str, Target]] = ()
) -> tuple[Recognition, Classifier]:
    recognition = Recognition(mappings or {}, lambda: offered)
    return recognition, Classifier(recognition)


def test_an_application_registers_its_own_exception_by_code_verdict_or_function() -> None:
    kind = foreign("LabError")
    recognition, classifier = a_classifier()
    assert classifier.classify(kind("x")).error_code == "INTERNAL_ERROR"
    recognition.register("lab.client.LabError", "SERVICE_UNAVAILABLE")
    assert classifier.classify(kind("x")).error_code == "SERVICE_UNAVAILABLE"
    recognition.register("lab.client.LabError", Verdict("CONNECTION_ERROR", retry_rule=NEVER))
    assert not classifier.classify(kind("x")).retryable
    recognition.register("lab.client.LabError", lambda error: "RATE_LIMIT_ERROR" if error.args else None)
    assert classifier.classify(kind("x")).error_code == "RATE_LIMIT_ERROR"
    assert classifier.classify(kind()).error_code == "INTERNAL_ERROR"


def test_a_function_may_point_to_the_exception_inside() -> None:
    _, classifier = a_classifier(
        {"lab.client.LabError": lambda error: error.__cause__, "builtins.TimeoutError": "TIMEOUT_ERROR"}
    )
    error = foreign("LabError")("x")
    error.__cause__ = TimeoutError()
    assert classifier.classify(error).error_code == "TIMEOUT_ERROR"
    error.__cause__ = ValidationError("wrong")
    assert classifier.classify(error).error_code == "VALIDATION_ERROR"
    error.__cause__ = error
    assert classifier.classify(error).error_code == "INTERNAL_ERROR"


def test_a_function_that_fails_or_names_an_unknown_code_is_passed_over() -> None:
    def fail(error: BaseException) -> str:
        raise ZeroDivisionError

    kind = foreign("LabError", ConnectionError)
    for target in (fail, lambda error: "NO_SUCH_CODE"):
        _, classifier = a_classifier(
            {"lab.client.LabError": target, "builtins.ConnectionError": "CONNECTION_ERROR"}
        )
        assert classifier.classify(kind("x")).error_code == "CONNECTION_ERROR"


def test_a_mapping_to_an_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="no class is registered for the code 'NO_SUCH_CODE'"):
        register_mapping("lab.client.LabError", "NO_SUCH_CODE")


def test_mappings_of_installed_packages_are_loaded_once_and_bad_ones_left_out() -> None:
    asked = 0

    def offer() -> Iterable[Mapping[str, Target]]:
        nonlocal asked
        asked += 1
        yield {"lab.client.Bad": "NO_SUCH_CODE", "lab.client.LabError": "TIMEOUT_ERROR"}

    classifier = Classifier(Recognition({}, offer))
    kind = foreign("LabError")
    assert [classifier.classify(kind("x")).error_code for _ in range(2)] == ["TIMEOUT_ERROR"] * 2
    assert asked == 1


# -- control flow ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Retry("x"),
        Ignore("x"),
        Reject("x"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("g", [KeyboardInterrupt(), SystemExit()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_control_flow_is_no_error(error: BaseException) -> None:
    assert is_control_flow(error)


@pytest.mark.parametrize(
    "error", [ValueError(), TechDeckError("x"), BaseExceptionGroup("g", [ValueError(), SystemExit()])]
)
def test_an_error_is_no_control_flow(error: BaseException) -> None:
    assert not is_control_flow(error)


# -- whatever comes ----------------------------------------------------------------------------------


@given(
    st.sampled_from(
        [ValueError, OSError, redis.ResponseError, psycopg.Error, psycopg.OperationalError, KeyError]
    ),
    st.lists(st.one_of(st.none(), st.text(), st.integers(), st.binary()), max_size=3),
)
def test_any_arguments_are_classified(kind: type[Exception], arguments: list[Any]) -> None:
    error = kind(*arguments)
    assert classify(error).error_code in registered_codes()
    assert as_techdeck_error(error).error_id == error_id_of(error)


def test_a_hostile_exception_is_classified() -> None:
    class HostileError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert classify(HostileError()).error_code == "INTERNAL_ERROR"
    details = as_techdeck_error(HostileError()).details
    assert details["original_error"] == "HostileError: (its text could not be read)"


def test_no_driver_is_imported_to_recognise_its_exceptions() -> None:
    drivers = ("redis", "psycopg", "sqlalchemy", "celery", "requests", "httpx", "polars", "pandera")
    code = (
        "import sys, techdeck_tasks.errors as errors; errors.classify(OSError()); "
        f"print([driver for driver in {drivers} if driver in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
