"""Every script of the project gets keys of one cluster slot: a Redis Cluster refuses anything else."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot

import techdeck_tasks
from techdeck_tasks.audit.writing.stream import AuditStream
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ConnectionFailedError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.metrics import RedisMetricsStore
from techdeck_tasks.metrics.series import Kind, Series
from techdeck_tasks.metrics.store import Batch
from techdeck_tasks.resilience.breaker import BreakerConfig, State
from techdeck_tasks.resilience.breaker.redis_store import RedisBreakerStore
from techdeck_tasks.resilience.breaker.state import Batch as Successes
from techdeck_tasks.resilience.breaker.state import ProbeOutcome
from techdeck_tasks.resilience.statistics import RetryRegistry
from techdeck_tasks.storage.redis_client import Script
from techdeck_tasks.tasks.letters import Letter, LetterKind, LetterStore, RedisShelf
from techdeck_tasks.tasks.quarantine import Quarantine
from techdeck_tasks.web.rate import Subject, seconds_to_wait


class ListeningRedis(Redis):
    """Notes which keys each script is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.heard: list[tuple[str, tuple[str, ...]]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "EVALSHA":
            _, sha1, count, *rest = args
            self.heard.append((sha1, tuple(rest[:count])))
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py says no types


@pytest.fixture
def redis(redis_url: str) -> Iterator[ListeningRedis]:
    with ListeningRedis.from_url(redis_url) as client:
        client.flushall()
        yield client


def scripts() -> set[str]:
    """Return the digest of every script that a module of the project holds."""
    held: set[str] = set()
    for module in pkgutil.walk_packages(techdeck_tasks.__path__, "techdeck_tasks."):
        if module.name.endswith(("__main__", ".migrations.env")) or ".migrations.versions" in module.name:
            continue
        for value in vars(importlib.import_module(module.name)).values():
            values = value.values() if isinstance(value, Mapping) else [value]
            held |= {one.sha1 for one in values if isinstance(one, Script)}
    return held


def use_everything(client: ListeningRedis) -> None:
    """Let each part of the project run its scripts."""
    clock = SystemClock()
    cipher = Cipher(KeySet("k", {"k": b"\0" * 32}))
    for kind in LetterKind:
        LetterStore(RedisShelf(client, kind), cipher, clock).add(
            Letter.of(
                ConnectionFailedError("the lab is away"),
                kind=kind,
                task_name="lab.fetch",
                task_id="t-1",
                signature={},
                service="lab",
                attempts=1,
                failed_at=clock.now(),
            )
        )
    quarantine = Quarantine(client, cipher, clock)
    quarantine.take(quarantine.add("malformed", b"body", queue="pipeline").message_id)
    counted = Batch("one", 1, int(time.time() // 60), {Series(Kind.SUCCESS, service="lab"): 1})
    RedisMetricsStore(client, timedelta(hours=24)).add(counted)
    retries = RetryRegistry(client)
    retries.record("lab.fetch", 1, success=True)
    retries.flush()
    seconds_to_wait(client, [Subject("address:127.0.0.1", 10), Subject("credential:x", 10)])
    AuditStream(client, "one").forget_dead_consumers()
    breaker, config = RedisBreakerStore(client), BreakerConfig()
    breaker.sync("lab", config, Successes(0, 1, 0, 0))
    epoch = breaker.fail("lab", config, Successes(0, 0, 0, 0), epoch=0, cost=1).epoch
    breaker.lease("lab", config, "permit")
    breaker.settle("lab", config, epoch=epoch, permit_id="permit", outcome=ProbeOutcome.OK, cost=0)
    breaker.override("lab", config, State.DISABLED, ttl_ms=1000, owner="me", reason="test")
    breaker.hold("lab", config, hold_ms=1, reason="test")
    breaker.reset("lab", config, owner="me", reason="test")
    breaker.remember("lab", 1)


def test_every_script_is_given_keys_of_one_slot(redis: ListeningRedis) -> None:
    use_everything(redis)

    assert {sha1 for sha1, _ in redis.heard} == scripts()
    for _, keys in redis.heard:
        assert len({key_slot(key.encode()) for key in keys}) == 1, keys
