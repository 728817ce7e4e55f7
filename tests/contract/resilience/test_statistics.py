"""Retry statistics of all processes together."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from techdeck_tasks.resilience import RetryRegistry

if TYPE_CHECKING:
    from redis import Redis


def test_what_two_processes_count_adds_up(breaker_redis: Redis) -> None:
    operation = f"op-{uuid.uuid4().hex}"
    ours, theirs = RetryRegistry(breaker_redis), RetryRegistry(breaker_redis)
    ours.record(operation, 0, success=True)
    ours.record(operation, 2, success=True)
    theirs.record(operation, 2, success=False)
    theirs.record(operation, 500, success=False)
    theirs.flush()
    statistics = ours.get_statistics(operation)
    assert statistics == {
        "total_operations": 4,
        "successful_operations": 2,
        "failed_operations": 2,
        "total_retries": 504,
        "average_retries": 126.0,
        "retry_distribution": {"2": 2, "20": 1},
    }
    assert theirs.get_statistics()["operations"][operation] == statistics
    assert 0 < breaker_redis.ttl(f"td:retry:{{{operation}}}") <= 30 * 86400


@pytest.fixture(params=["redis", "memory"])
def client(request: pytest.FixtureRequest) -> Redis | None:
    """None counts in the process, as a testbed does."""
    return None if request.param == "memory" else request.getfixturevalue("breaker_redis")


def test_an_operation_nobody_ran_has_empty_statistics(client: Redis | None) -> None:
    statistics = RetryRegistry(client).get_statistics(f"op-{uuid.uuid4().hex}")
    assert statistics["total_operations"] == 0
    assert statistics["average_retries"] == 0.0
    assert statistics["retry_distribution"] == {}


def test_what_one_process_counts_is_seen_at_once(client: Redis | None) -> None:
    operation = f"op-{uuid.uuid4().hex}"
    registry = RetryRegistry(client, flush_s=60)
    registry.record(operation, 2, success=True)
    registry.record(operation, 0, success=False)
    statistics = registry.get_statistics(operation)
    assert statistics == registry.get_statistics()["operations"][operation]
    assert (statistics["successful_operations"], statistics["failed_operations"]) == (1, 1)
    assert statistics["retry_distribution"] == {"2": 1}


def test_a_batch_is_told_when_it_is_due(client: Redis | None) -> None:
    operation = f"op-{uuid.uuid4().hex}"
    assert not RetryRegistry(client, flush_s=60).record(operation, 0, success=True)
    assert RetryRegistry(client, flush_s=0).record(operation, 0, success=True)
