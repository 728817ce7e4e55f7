"""The seven strategies, each of which has changed something where it reports success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from techdeck_tasks.errors import (
    BiasDetectionError,
    ConnectionFailedError,
    DataProcessingError,
    PipelineExecutionError,
    RateLimitError,
    ServiceUnavailableError,
    TechDeckError,
    TimeoutError,  # noqa: A004 - the specification's name
    ValidationError,
    classify,
)
from techdeck_tasks.resilience import RecoveryManager, RecoveryResources
from techdeck_tasks.resilience.resources import BatchSize, DatabaseConnection, EndpointPool
from techdeck_tasks.settings import Settings

Clock = Any


class Desk:
    """Where people find what waits for them."""

    def __init__(self) -> None:
        self.requests: dict[str, Mapping[str, Any]] = {}

    def open(self, *, error_id: str, error_code: str, requirements: Mapping[str, Any]) -> str:
        self.requests.setdefault(error_id, {"code": error_code, **requirements})
        return f"intervention-{error_id}"


class Cache:
    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)

    def delete(self, keys: Sequence[str]) -> int:
        found = self.keys.intersection(keys)
        self.keys -= found
        return len(found)


def recover(manager: RecoveryManager, error: Exception, **context: Any) -> Mapping[str, Any]:
    return manager.attempt_recovery(error, classify(error), context)


def test_a_timeout_and_a_rate_limit_are_recovered_by_trying_again(settings: Settings) -> None:
    for error in (TimeoutError("x"), RateLimitError("x")):
        result = recover(RecoveryManager(settings), error)
        assert (result["successful"], result["strategy_used"]) == (True, "retry_operation")
        assert result["retry_recommended"] is True


def test_an_unrecoverable_error_is_not_tried_again(settings: Settings) -> None:
    error = TechDeckError("x", error_code="TIMEOUT_ERROR", recoverable=False)
    assert not recover(RecoveryManager(settings), error)["successful"]


def test_a_connection_is_closed_and_made_anew(settings: Settings, clock: Clock) -> None:
    engine = create_engine("sqlite://", poolclass=QueuePool)
    with engine.connect():
        pass
    before = engine.pool
    manager = RecoveryManager(
        settings, RecoveryResources(connections={"warehouse": DatabaseConnection(engine)}), clock=clock
    )
    result = recover(manager, ConnectionFailedError("x"), connection_info={"connection_id": "warehouse"})
    assert (result["successful"], result["strategy_used"]) == (True, "reset_connection")
    assert engine.pool is not before
    assert clock.slept == [settings.connection_reset_delay_seconds]
    assert recover(manager, ConnectionFailedError("x"), service="warehouse")["successful"]
    assert not recover(manager, ConnectionFailedError("x"), service="other")["successful"]
    engine.dispose()


def test_a_connection_that_still_does_not_answer_was_not_recovered(settings: Settings, clock: Clock) -> None:
    class Dead:
        def close(self) -> None:
            """Nothing is open."""

        def check(self) -> None:
            raise OSError("refused; password=hunter2")

    manager = RecoveryManager(settings, RecoveryResources(connections={"lab": Dead()}), clock=clock)
    result = recover(manager, ConnectionFailedError("x"), service="lab")
    assert result["successful"] is False
    assert "hunter2" not in str(result)


def test_the_next_endpoint_is_used_and_those_that_failed_are_remembered(
    settings: Settings, clock: Clock
) -> None:
    pool = EndpointPool(["a", "b", "c"], clock=clock, cool_down_s=60)
    manager = RecoveryManager(settings, RecoveryResources(endpoints={"lab": pool}))
    assert recover(manager, ServiceUnavailableError("x"), service="lab")["endpoint"] == "b"
    assert pool.current == "b"
    late = recover(manager, ServiceUnavailableError("x"), service="lab", endpoint="a")
    assert late["endpoint"] == "b", "who still used the first one is sent to the present one"
    assert recover(manager, ServiceUnavailableError("x"), service="lab")["endpoint"] == "c"
    assert not recover(manager, ServiceUnavailableError("x"), service="lab")["successful"]
    clock.sleep(61)
    assert recover(manager, ServiceUnavailableError("x"), service="lab")["endpoint"] == "a"
    assert not recover(manager, ServiceUnavailableError("x"), service="other")["successful"]


def test_an_endpoint_that_serves_again_may_be_used_at_once(clock: Clock) -> None:
    pool = EndpointPool(["a", "b"], clock=clock)
    assert pool.switch() == "b"
    assert pool.switch() is None
    pool.succeeded("a")
    assert pool.switch() == "a"
    with pytest.raises(ValueError, match="once"):
        EndpointPool(["a", "a"])


def test_the_batch_is_halved_down_to_one(settings: Settings) -> None:
    manager = RecoveryManager(settings)
    size = BatchSize(5)
    assert recover(manager, PipelineExecutionError("x"), batch_size=size)["new_batch_size"] == 2
    assert recover(manager, PipelineExecutionError("x"), batch_size=size)["new_batch_size"] == 1
    assert size.value == 1
    assert not recover(manager, PipelineExecutionError("x"), batch_size=size)["successful"]
    assert recover(manager, PipelineExecutionError("x"), batch_size=100)["new_batch_size"] == 50
    assert not recover(manager, PipelineExecutionError("x"))["successful"], "nothing to reduce"


def test_the_alternative_method_is_run(settings: Settings) -> None:
    manager = RecoveryManager(
        settings, RecoveryResources(alternatives={"by_rows": lambda context: context["rows"] * 2})
    )
    named = recover(manager, DataProcessingError("x"), alternative_method="by_rows", rows=21)
    assert (named["successful"], named["result"], named["alternative_method"]) == (True, 42, "by_rows")
    given = recover(manager, DataProcessingError("x"), alternative_method=lambda context: "done")
    assert given["result"] == "done"
    assert not recover(manager, DataProcessingError("x"))["successful"]
    assert not recover(manager, DataProcessingError("x"), alternative_method="unknown")["successful"]


def test_an_alternative_that_fails_is_a_failed_recovery(settings: Settings) -> None:
    def broken(context: Mapping[str, Any]) -> None:
        raise RuntimeError("password=hunter2")

    result = recover(RecoveryManager(settings), DataProcessingError("x"), alternative_method=broken)
    assert (result["successful"], result["strategy_used"]) == (False, "use_alternative_method")
    assert result["recovery_error"].startswith("RuntimeError")
    assert "hunter2" not in str(result)


def test_a_person_is_asked_once_for_each_error(settings: Settings) -> None:
    desk = Desk()
    manager = RecoveryManager(settings, RecoveryResources(interventions=desk))
    error = ValidationError("age is no number")
    for _ in range(2):
        result = recover(manager, error, intervention_requirements={"field": "age"})
        assert result["intervention_required"] is True
        assert result["intervention_id"] == f"intervention-{error.error_id}"
    assert desk.requests == {error.error_id: {"code": "VALIDATION_ERROR", "field": "age"}}
    assert not recover(RecoveryManager(settings), error)["successful"], "there is nobody to ask"


def test_cached_entries_are_deleted_where_there_are_any(settings: Settings) -> None:
    cache = Cache("a", "b", "c")
    manager = RecoveryManager(settings, RecoveryResources(cache=cache))
    error = PipelineExecutionError("stale")
    result = recover(manager, error, recovery_strategy="clear_cache", cache_keys=["a", "b", "z"])
    assert (result["successful"], result["cleared"]) == (True, 2)
    assert cache.keys == {"c"}
    assert not recover(manager, error, recovery_strategy="clear_cache", cache_keys=["z"])["successful"]
    unmapped = TechDeckError("x")
    assert recover(manager, unmapped, cache_keys=["c"])["strategy_used"] == "clear_cache"


def test_where_nothing_fits_it_says_so(settings: Settings) -> None:
    error = BiasDetectionError("x")
    manager = RecoveryManager(settings)
    assert recover(manager, error) == {
        "successful": False,
        "message": "No suitable recovery strategy found",
        "strategy_used": None,
    }
    assert manager.attempt(error, classify(error), {}) is None


def test_an_application_adds_a_strategy_of_its_own(settings: Settings) -> None:
    manager = RecoveryManager(settings)
    manager.register(
        "drain_queue",
        lambda error, classification, context: {"successful": True, "message": "drained"},
        error_codes=("TIMEOUT_ERROR",),
    )
    result = recover(manager, TimeoutError("x"))
    assert result == {"successful": True, "message": "drained", "strategy_used": "drain_queue"}
