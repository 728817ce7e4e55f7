"""The scripts in Redis and the machine in Python are the same breaker."""

from __future__ import annotations

import time
import uuid
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
    lease_s=st.sampled_from([0.004, 1.0]),
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
INTERVENTIONS = st.one_of(
    st.tuples(
        st.just("override"),
        st.sampled_from([State.FORCED_OPEN, State.DISABLED, State.SHADOW]),
        st.sampled_from([0, 1, 1, 1000]),
    ),
    st.tuples(st.just("clear")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("hold"), st.sampled_from([0, 1, 500])),
    st.tuples(st.just("reset")),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("sync"), EPOCHS, st.integers(0, 2), st.integers(0, 2), st.sampled_from([0, 1, 1000])),
    st.tuples(st.just("fail"), EPOCHS, st.integers(0, 2), st.integers(0, 6)),
    st.tuples(st.just("lease"), IDS),
    st.tuples(st.just("lease"), IDS),
    st.tuples(st.just("settle"), EPOCHS, IDS, st.sampled_from(ProbeOutcome), st.integers(0, 6)),
    INTERVENTIONS,
    st.tuples(st.just("wait")),
    # Random steps alone seldom get as far as a second probe.
    st.tuples(st.just("half-open")),
    st.tuples(st.just("half-open")),
    st.tuples(st.just("probe succeeds"), IDS),
    st.tuples(st.just("probe succeeds"), IDS),
    st.tuples(st.just("probe reports an old epoch"), IDS),
    st.tuples(st.just("old success")),
)


@pytest.fixture(scope="module")
def client(redis_url: str) -> Redis:
    return connect_redis(Settings(redis_url=redis_url, redis_timeout_seconds=2))


def run(  # noqa: PLR0911 - one for each operation
    store: BreakerStore, config: BreakerConfig, name: str, epoch: int, step: tuple[object, ...]
) -> Reply:
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
    max_examples=400,
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

    def compare(*step: object) -> Reply:
        nonlocal now, epoch
        theirs = run(scripts, config, name, epoch, step)
        now = theirs.now_ms
        assert run(machine, config, name, epoch, step) == theirs, step
        epoch = theirs.epoch
        return theirs

    for step in steps:
        if step == ("wait",):
            end = time.monotonic() + 0.003
            while time.monotonic() < end:
                client.ping()
        elif step == ("half-open",):
            for _ in range(config.failure_threshold):
                reply = compare("fail", 0, 0, 0)
            end = time.monotonic() + 0.01
            while reply.open_left_ms and time.monotonic() < end:
                reply = compare("sync", 0, 0, 0, 0)
            compare("lease", "a")
        elif step[0] == "probe succeeds":
            compare("lease", step[1])
            compare("settle", 0, step[1], ProbeOutcome.OK, 0)
        elif step[0] == "probe reports an old epoch":
            compare("lease", step[1])
            compare("settle", -1, step[1], ProbeOutcome.OK, 0)
        elif step == ("old success",):
            compare("fail", 0, 0, 0)
            compare("sync", 0, 1, 0, 1000)
        else:
            compare(*step)
    recorded = [event for key, _, event in machine.transitions({}, 64) if key == name]
    if recorded:
        scripts.remember(name, now)
        assert [event for key, _, event in scripts.transitions({}, 64) if key == name] == recorded
    client.delete(f"td:cb:{{{name}}}:s", f"td:cb:{{{name}}}:l", f"td:cb:{{{name}}}:e")
    client.zrem("td:cb:index", name)
