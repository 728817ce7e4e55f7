"""Retry statistics of all processes together."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

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


def test_an_operation_nobody_ran_has_empty_statistics(breaker_redis: Redis) -> None:
    statistics = RetryRegistry(breaker_redis).get_statistics(f"op-{uuid.uuid4().hex}")
    assert statistics["total_operations"] == 0
    assert statistics["average_retries"] == 0.0
    assert statistics["retry_distribution"] == {}


def test_a_batch_is_told_when_it_is_due(breaker_redis: Redis) -> None:
    operation = f"op-{uuid.uuid4().hex}"
    assert not RetryRegistry(breaker_redis, flush_s=60).record(operation, 0, success=True)
    assert RetryRegistry(breaker_redis, flush_s=0).record(operation, 0, success=True)
