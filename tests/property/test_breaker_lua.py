"""The scripts in Redis and the machine in Python are the same breaker."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from techdeck_tasks.resilience.breaker import BreakerConfig, Counting, RetryBudget, State
from techdeck_tasks.resilience.breaker.memory_store import MemoryBreakerStore
from techdeck_tasks.resilience.breaker.redis_store import RedisBreakerStore
from techdeck_tasks.resilience.breaker.state import Batch, BreakerStore, ProbeOutcome, Reply
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis

if TYPE_CHECKING:
    from redis import Redis

# Real time passes in Redis: periods are some round trips long, so that they end during a run.
CONFIGS = st.builds(
    BreakerConfig,
    counting=st.sampled_from(Counting),
    failure_threshold=st.integers(1, 3),
    success_threshold=st.integers(1, 2),
    minimum_calls=st.integers(1, 4),
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    slow_rate=st.sampled_from([0.5, 1.0]),
    open_s=st.sampled_from([0.001, 0.003]),
    open_growth=st.sampled_from([1.0, 1.7]),
    open_cap_s=st.sampled_from([0.004, 1.0]),
    window_s=st.sampled_from([0.01, 1.0]),
    probes=st.integers(1, 2),
    lease_s=st.sampled_from([0.002, 1.0]),
    drain_s=st.sampled_from([0.0, 0.005]),
    drain_per_s=st.sampled_from([1, 3, 1000]),
    budget=st.builds(
        RetryBudget,
        capacity=st.integers(1, 20),
        refund=st.integers(0, 2),
        refill_per_s=st.sampled_from([0.0, 0.7, 500.0]),
    ),
)
IDS = st.sampled_from(["a", "b", "c"])
EPOCHS = st.sampled_from([0, 0, 0, -1])
"""How far from the present epoch; mostly not at all."""
OPERATIONS = st.one_of(
    st.tuples(st.just("sync"), EPOCHS, st.integers(0, 2), st.integers(0, 2), st.sampled_from([0, 1, 1000])),
    st.tuples(st.just("fail"), EPOCHS, st.integers(0, 2), st.integers(0, 6)),
    st.tuples(st.just("lease"), IDS),
    st.tuples(st.just("lease"), IDS),
    st.tuples(st.just("settle"), EPOCHS, IDS, st.sampled_from(ProbeOutcome), st.integers(0, 6)),
    st.tuples(
        st.just("override"),
        st.sampled_from([State.FORCED_OPEN, State.DISABLED, State.SHADOW]),
        st.sampled_from([0, 1, 1000]),
    ),
    st.tuples(st.just("clear")),
    st.tuples(st.just("hold"), st.sampled_from([0, 1, 500])),
    st.tuples(st.just("reset")),
    st.tuples(st.just("wait")),
)


@pytest.fixture(scope="module")
def client(redis_url: str) -> Redis:
    return connect_redis(Settings(redis_url=redis_url, redis_timeout_seconds=2))


def run(store: BreakerStore, config: BreakerConfig, name: str, epoch: int, step: tuple[object, ...]) -> Reply:
    match step:
        case ("sync", int(off), int(ok), int(slow), int(age)):
            return store.sync(name, config, Batch(epoch + off, ok, slow, age))
        case ("fail", int(off), int(ok), int(cost)):
            return store.fail(name, config, Batch(epoch, ok, 0, 0), epoch=epoch + off, cost=cost)
        case ("lease", str(permit_id)):
            return store.lease(name, config, permit_id)
        case ("settle", int(off), str(permit_id), ProbeOutcome() as outcome, int(cost)):
            return store.settle(
                name, config, epoch=epoch + off, permit_id=permit_id, outcome=outcome, cost=cost
            )
        case ("override", State() as state, int(ttl_ms)):
            return store.override(name, config, state, ttl_ms=ttl_ms, owner="ann", reason="é why")
        case ("clear",):
            return store.clear(name, config, owner="ben", reason="done")
        case ("hold", int(ms)):
            return store.hold(name, config, hold_ms=ms, reason="429")
        case ("reset",):
            return store.reset(name, config, owner="ben", reason="fixed")
    raise AssertionError(step)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(config=CONFIGS, steps=st.lists(OPERATIONS, max_size=40))
def test_every_reply_of_the_scripts_is_the_machines(
    client: Redis, config: BreakerConfig, steps: list[tuple[object, ...]]
) -> None:
    name = f"lua-{uuid.uuid4().hex}"
    now = 0
    scripts, machine = RedisBreakerStore(client), MemoryBreakerStore(lambda: now)
    epoch = 0
    for step in steps:
        if step == ("wait",):
            end = time.monotonic() + 0.003
            while time.monotonic() < end:
                client.ping()
            continue
        theirs = run(scripts, config, name, epoch, step)
        now = theirs.now_ms
        ours = run(machine, config, name, epoch, step)
        assert ours == replace(theirs), step
        epoch = theirs.epoch
    recorded = [event for key, _, event in machine.transitions({}, 64) if key == name]
    if recorded:
        scripts.remember(name, now)
        assert [event for key, _, event in scripts.transitions({}, 64) if key == name] == recorded
    client.delete(f"td:cb:{{{name}}}:s", f"td:cb:{{{name}}}:l", f"td:cb:{{{name}}}:e")
    client.zrem("td:cb:index", name)
