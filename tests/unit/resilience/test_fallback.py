"""What stands in, and what nothing stands in for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from techdeck_tasks.errors import (
    AuthenticationError,
    AuthorizationError,
    BiasDetectionError,
    EncryptionError,
    FallbackFailedError,
    HIPAAComplianceError,
    PipelineExecutionError,
    RetryExhaustedError,
    ServiceUnavailableError,
)
from techdeck_tasks.resilience import FallbackManager
from techdeck_tasks.resilience.fallback import may_stand_in
from techdeck_tasks.settings import Settings


def raising(error: Exception) -> Any:
    def operation() -> None:
        raise error

    return operation


@pytest.fixture
def fallbacks(settings: Settings) -> FallbackManager:
    manager = FallbackManager(settings)
    manager.create_default_fallbacks()
    return manager


def test_an_operation_that_succeeds_is_left_alone(fallbacks: FallbackManager) -> None:
    assert fallbacks.execute_with_fallback(lambda: {"rows": 3}, "dataset_load") == {"rows": 3}


def test_a_fallbacks_dict_is_marked_and_the_error_in_it_is_redacted(fallbacks: FallbackManager) -> None:
    error = ServiceUnavailableError("db at postgres://u:hunter2@db/x is down")
    result = fallbacks.execute_with_fallback(raising(error), "dataset_load")
    assert result["data"] == []
    assert result["metadata"]["fallback"] is True
    assert result["_fallback"] is True
    assert result["_primary_error"].startswith("ServiceUnavailableError: ")
    assert "hunter2" not in str(result)


def test_a_result_that_is_no_dict_is_returned_as_it_is(fallbacks: FallbackManager) -> None:
    fallbacks.register_fallback("count", lambda error, context: 0)
    assert fallbacks.execute_with_fallback(raising(ServiceUnavailableError("x")), "count") == 0


def test_the_specifications_defaults_read_the_context(fallbacks: FallbackManager) -> None:
    error = ServiceUnavailableError("x")
    pipeline = fallbacks.execute_with_fallback(raising(error), "pipeline_execute", {"pipeline_id": "p1"})
    assert (pipeline["pipeline_id"], pipeline["status"]) == ("p1", "failed_with_fallback")
    assert fallbacks.execute_with_fallback(raising(error), "pipeline_execute")["pipeline_id"] == "unknown"
    upload = fallbacks.execute_with_fallback(raising(error), "file_upload", {"upload_id": "u1"})
    assert (upload["upload_id"], upload["status"]) == ("u1", "failed")


def test_a_failed_bias_detection_has_not_found_no_bias(fallbacks: FallbackManager) -> None:
    result = fallbacks.execute_with_fallback(raising(PipelineExecutionError("x")), "bias_detection")
    assert result["status"] == "fallback"
    assert result["bias_detected"] is None
    assert result["requires_review"] is True


def test_it_assumes_no_bias_only_where_that_is_set() -> None:
    manager = FallbackManager(Settings(bias_fallback_assumes_no_bias=True))
    manager.create_default_fallbacks()
    result = manager.execute_with_fallback(raising(PipelineExecutionError("x")), "bias_detection")
    assert (result["bias_detected"], result["bias_score"]) == (False, 0.0)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("x"),
        AuthorizationError("x"),
        EncryptionError("x"),
        HIPAAComplianceError("x"),
        BiasDetectionError("x", bias_type="sex"),
        RetryExhaustedError("x", last_error=EncryptionError("y")),
        FallbackFailedError("x", primary_error=AuthorizationError("y")),
    ],
)
def test_no_fallback_hides_an_intruder_a_breach_or_a_finding(
    fallbacks: FallbackManager, error: Exception
) -> None:
    for name in ("bias_detection", "dataset_load"):
        with pytest.raises(type(error)) as caught:
            fallbacks.execute_with_fallback(raising(error), name)
        assert caught.value is error


def test_control_flow_is_never_masked() -> None:
    assert not may_stand_in(KeyboardInterrupt())
    assert not may_stand_in(asyncio.CancelledError())


def test_without_a_fallback_the_error_itself_is_raised(fallbacks: FallbackManager) -> None:
    error = ServiceUnavailableError("x")
    with pytest.raises(ServiceUnavailableError) as caught:
        fallbacks.execute_with_fallback(raising(error), "nothing_registered")
    assert caught.value is error
    assert not fallbacks.has_fallback("nothing_registered")


def test_when_both_fail_the_error_carries_both_redacted(fallbacks: FallbackManager) -> None:
    def fails_too(error: BaseException, context: Mapping[str, Any]) -> None:
        raise RuntimeError("token=abcdef0123456789")

    fallbacks.register_fallback("lab", fails_too)
    with pytest.raises(FallbackFailedError) as caught:
        fallbacks.execute_with_fallback(raising(ServiceUnavailableError("password=hunter2")), "lab")
    details = caught.value.details
    assert details["primary_error_code"] == "SERVICE_UNAVAILABLE"
    assert details["fallback_error"].startswith("RuntimeError")
    assert "hunter2" not in str(details)
    assert "abcdef0123456789" not in str(details)


def test_async_operations_may_have_sync_or_async_fallbacks(fallbacks: FallbackManager) -> None:
    async def fails() -> None:
        raise ServiceUnavailableError("x")

    async def stand_in(error: BaseException, context: Mapping[str, Any]) -> dict[str, int]:
        return {"rows": 0}

    async def scenario() -> None:
        fallbacks.register_fallback("lab", stand_in)
        result = await fallbacks.execute_with_fallback(fails, "lab")
        assert (result["rows"], result["_fallback"]) == (0, True)
        assert (await fallbacks.execute_with_fallback(fails, "dataset_load"))["data"] == []
        assert (await fallbacks.execute_with_fallback(lambda: fails(), "dataset_load"))["data"] == []  # noqa: PLW0108 - the point
        with pytest.raises(ServiceUnavailableError):
            await fallbacks.execute_with_fallback(fails, "nothing_registered")

    asyncio.run(scenario())


def test_an_async_fallback_of_a_sync_operation_is_named(fallbacks: FallbackManager) -> None:
    async def stand_in(error: BaseException, context: Mapping[str, Any]) -> None:
        raise AssertionError

    fallbacks.register_fallback("lab", stand_in)
    with pytest.raises(FallbackFailedError) as caught:
        fallbacks.execute_with_fallback(raising(ServiceUnavailableError("x")), "lab")
    assert "async" in caught.value.details["fallback_error"]
