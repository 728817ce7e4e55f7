"""The breaker while Redis hangs, dies, comes back empty, forgets the scripts, or fails over."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from techdeck_tasks.errors import CircuitBreakerError, ServiceUnavailableError
from techdeck_tasks.resilience.breaker import (
    AwayPolicy,
    BreakerConfig,
    BreakerRegistry,
    CircuitBreaker,
    State,
)
from techdeck_tasks.resilience.breaker.gate import StoreGate
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis

Until = Callable[..., None]
Server = Any

CONFIG = BreakerConfig(open_s=0.2, success_threshold=1, snapshot_s=0.02)


def breaker_on(server: Server, config: BreakerConfig = CONFIG, name: str = "svc") -> CircuitBreaker:
    return CircuitBreaker(name, server.client(), config, gate=StoreGate(retry_s=0.1))


def open_it(breaker: CircuitBreaker) -> None:
    for _ in range(breaker.config.failure_threshold):
        breaker.acquire().failure()


def test_while_redis_is_away_a_local_breaker_answers_and_later_the_shared_one(
    server: Server, until: Until
) -> None:
    breaker = breaker_on(server)
    assert breaker.can_execute()
    server.kill()
    open_it(breaker)
    status = breaker.get_status()
    assert (status["state"], status["source"]) == ("open", "local")
    assert not breaker.can_execute()
    until(breaker.can_execute)
    breaker.record_success()
    assert breaker.get_status()["state"] == "closed"
    server.start()
    until(lambda: bool(breaker.get_status()["source"] == "redis"))
    open_it(breaker)
    assert not breaker_on(server).can_execute()


def test_a_redis_that_hangs_delays_one_call_and_not_each(server: Server) -> None:
    breaker = CircuitBreaker("svc", server.client(0.1), CONFIG)
    breaker.acquire().success()
    server.signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(200):
        breaker.acquire().failure()
        if not breaker.can_execute():
            break
    assert time.monotonic() - started < 0.5
    server.signal(signal.SIGCONT)


def test_what_was_open_stays_open_while_redis_is_away(server: Server) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=600, open_refresh_s=0.01))
    open_it(breaker)
    server.kill()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert not breaker.can_execute()
    assert breaker.get_status()["source"] == "local"


def test_an_override_stays_in_force_while_redis_is_away_until_its_end(server: Server, until: Until) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=600, open_refresh_s=0.01))
    breaker.force(State.FORCED_OPEN, owner="ann", reason="deploy", ttl=timedelta(seconds=0.4))
    server.kill()
    assert not breaker.can_execute()
    assert breaker.get_status()["override"]["owner"] == "ann"
    until(breaker.can_execute, 3.0)


def test_an_operator_is_told_that_redis_is_away(server: Server) -> None:
    breaker = breaker_on(server)
    server.kill()
    with pytest.raises(ServiceUnavailableError, match="not changed"):
        breaker.force(State.DISABLED, owner="ann", reason="x")
    with pytest.raises(ServiceUnavailableError, match="not changed"):
        breaker.clear_override(owner="ann", reason="x")
    with pytest.raises(ServiceUnavailableError, match="not changed"):
        breaker.manual_reset()


@pytest.mark.parametrize(("policy", "admitted"), [(AwayPolicy.ALLOW, True), (AwayPolicy.DENY, False)])
def test_the_policy_decides_while_redis_is_away(
    server: Server, policy: AwayPolicy, *, admitted: bool
) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=0.2, away=policy, snapshot_s=0.02))
    server.kill()
    for _ in range(10):
        assert breaker.can_execute() is admitted
        breaker.record_failure()
    if not admitted:
        with pytest.raises(CircuitBreakerError):
            breaker.acquire()
    assert breaker.get_status()["state"] == "unknown"


def test_nothing_raises_where_redis_never_was(server: Server) -> None:
    server.kill()
    registry = BreakerRegistry(
        connect_redis(Settings(redis_url=server.url, redis_timeout_seconds=0.1)), Settings()
    )
    for _ in range(5):
        assert registry.can_execute("svc")
        registry.record_failure("svc")
    assert not registry.can_execute("svc")
    assert registry.get_status()["svc"]["state"] == "open"
    assert registry.names() == ["svc"]
    registry.get("svc").open_for(1)
    registry.flush()


def test_a_probe_leased_before_the_outage_may_report_after_it(server: Server, until: Until) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=0.02, success_threshold=1, lease_s=60))
    open_it(breaker)
    until(breaker.can_execute)
    server.signal(signal.SIGSTOP)
    breaker.flush()
    server.signal(signal.SIGCONT)
    until(lambda: bool(breaker.get_status()["source"] == "redis"))
    breaker.record_success()
    assert breaker.get_status()["state"] == "closed"


def test_scripts_that_redis_forgot_are_sent_again(server: Server) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=600))
    for _ in range(5):
        assert breaker.can_execute()
        server.client().script_flush()
        breaker.record_failure()
    assert breaker.get_status()["state"] == "open"
    assert breaker.get_status()["source"] == "redis"


def test_after_flushall_it_starts_closed_and_old_results_count_for_nothing(
    server: Server, until: Until
) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=0.02, lease_s=60, open_refresh_s=0.01))
    open_it(breaker)
    until(breaker.can_execute)
    server.client().flushall()
    for _ in range(3):
        breaker.record_failure()
    status = breaker.get_status()
    assert status["state"] == "closed"
    assert status["failure_count"] <= 2, "the probe of the lost period counted for nothing"
    while breaker.get_status()["state"] == "closed":
        breaker.acquire().failure()
    assert breaker.get_status()["state"] == "open"


def test_a_restart_that_loses_everything_is_survived_and_epochs_go_on_growing(
    server: Server, until: Until
) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=0.1, open_refresh_s=0.01))
    open_it(breaker)
    before = breaker.get_status()["epoch"]
    server.restart()
    until(lambda: bool(breaker.get_status()["source"] == "redis"))
    assert breaker.get_status()["state"] == "closed"
    open_it(breaker)
    assert breaker.get_status()["epoch"] > before


def _as_replica(client: Any) -> None:
    client.replicaof("127.0.0.1", 1)  # of a master that is not there


def _without_memory(client: Any) -> None:
    client.config_set("maxmemory", 1)


@pytest.mark.parametrize("refuse", [_as_replica, _without_memory], ids=["read-only replica", "out of memory"])
def test_a_redis_that_takes_no_writes_is_away_and_the_local_breaker_opens(
    server: Server, until: Until, refuse: Callable[[Any], None]
) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=600, snapshot_s=0.02))
    assert breaker.can_execute()
    refuse(server.client())
    open_it(breaker)
    end = time.monotonic() + 0.4  # several looks at Redis, which answers what only reads
    while time.monotonic() < end:
        assert not breaker.can_execute()
    server.client().replicaof("no", "one")
    server.client().config_set("maxmemory", 0)
    until(lambda: bool(breaker.get_status()["source"] == "redis"))
    open_it(breaker)
    assert not breaker_on(server).can_execute()
