"""The breaker across processes that race, die, stop, fork, and do not agree on the time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from techdeck_tasks.errors import CircuitBreakerError
from techdeck_tasks.resilience.breaker import BreakerConfig, CircuitBreaker, Counting
from techdeck_tasks.resilience.breaker.permit import Kind

Until = Callable[..., None]
Server = Any
Children = Any

NAME = "shared"


def breaker_on(server: Server, config: BreakerConfig, **options: Any) -> CircuitBreaker:
    return CircuitBreaker(NAME, server.client(1.0), config, **options)


def open_it(breaker: CircuitBreaker) -> None:
    while breaker.get_status()["underlying_state"] == "closed":
        breaker.acquire().failure()


def transitions(server: Server) -> list[tuple[str, str, int]]:
    entries = server.client(1.0).xrange(f"td:cb:{{{NAME}}}:e")
    return [
        (fields[b"old"].decode(), fields[b"new"].decode(), int(fields[b"epoch"])) for _, fields in entries
    ]


class Skewed:
    """A machine whose wall clock is off by hours."""

    def __init__(self, hours: float) -> None:
        self._offset = timedelta(hours=hours)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_processes_that_fail_at_once_open_it_once(server: Server, children: Children) -> None:
    config = BreakerConfig(failure_threshold=20, open_s=600)

    def hammer() -> None:
        breaker = breaker_on(server, config)
        while breaker.can_execute():
            breaker.record_failure()

    children.run(hammer, 8)
    assert children.join() == [0] * 8
    assert [(old, new) for old, new, _ in transitions(server)] == [("closed", "open")]
    assert breaker_on(server, config).get_failure_count() == 20


def test_of_many_processes_one_gets_the_probe(server: Server, children: Children, until: Until) -> None:
    config = BreakerConfig(open_s=0.2, lease_s=60)
    open_it(breaker_on(server, config))
    client = server.client(1.0)

    def ask() -> None:
        breaker = breaker_on(server, config)
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            try:
                kind = breaker.acquire().kind
            except CircuitBreakerError:
                continue
            client.incr(f"got-{kind.name}")

    children.run(ask, 8)
    assert children.join() == [0] * 8
    assert client.get("got-PROBE") == b"1"
    assert client.get("got-ORDINARY") is None


@pytest.mark.chaos
def test_it_recovers_though_one_in_three_probers_is_killed(
    server: Server, children: Children, until: Until, chaos_round: int
) -> None:
    config = BreakerConfig(
        open_s=0.03, open_growth=1, lease_s=0.1, probes=2, success_threshold=6, snapshot_s=0.01
    )
    open_it(breaker_on(server, config))
    client = server.client(1.0)

    def prober() -> None:
        rng = random.Random(os.getpid())
        breaker = breaker_on(server, config, clock=Skewed(rng.uniform(-48, 48)))
        while True:
            try:
                permit = breaker.acquire()
            except CircuitBreakerError:
                continue
            if permit.kind is not Kind.PROBE:
                if breaker.get_status()["state"] == "closed":
                    return
                continue
            if rng.random() < 0.3:
                client.incr("killed")
                os.kill(os.getpid(), signal.SIGKILL)
            permit.success()

    children.run(prober, 12)
    most = 0
    end = time.monotonic() + 20
    while any(process.is_alive() for process in children.processes):
        assert time.monotonic() < end, "it did not recover"
        now = client.time()
        most = max(most, client.zcount(f"td:cb:{{{NAME}}}:l", now[0] * 1000 + now[1] // 1000, "+inf"))
        if all(not process.is_alive() for process in children.processes[:-1]):
            break
    assert most <= 2
    if client.get("killed") != b"12":
        until(lambda: bool(breaker_on(server, config).get_status()["state"] == "closed"))
    epochs = [epoch for _, _, epoch in transitions(server)]
    assert epochs == sorted(set(epochs))


def test_a_killed_prober_delays_recovery_by_no_more_than_its_lease(
    server: Server, children: Children, until: Until
) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=0.3, success_threshold=1, snapshot_s=0.01)
    ours = breaker_on(server, config)
    open_it(ours)
    client = server.client(1.0)

    def die_probing() -> None:
        breaker = breaker_on(server, config)
        while not breaker.can_execute():
            pass
        client.set("leased", "1")
        os.kill(os.getpid(), signal.SIGKILL)

    children.run(die_probing)
    until(lambda: client.get("leased") == b"1")
    leased = time.monotonic()
    until(ours.can_execute, 3.0)
    assert time.monotonic() - leased < 1.0
    ours.record_success()
    assert ours.get_status()["state"] == "closed"


def test_a_prober_that_was_stopped_reports_too_late_and_changes_nothing(
    server: Server, children: Children, until: Until
) -> None:
    config = BreakerConfig(open_s=0.02, lease_s=0.4, success_threshold=1, snapshot_s=0.01)
    ours = breaker_on(server, config)
    open_it(ours)
    client = server.client(1.0)

    def probe_and_fail_late() -> None:
        breaker = breaker_on(server, config)
        while not breaker.can_execute():
            pass
        client.set("leased", "1")
        while client.get("report") is None:
            pass
        breaker.record_failure()

    children.run(probe_and_fail_late)
    until(lambda: client.get("leased") == b"1")
    pid = children.processes[0].pid
    os.kill(pid, signal.SIGSTOP)
    until(ours.can_execute, 3.0)
    ours.record_success()
    assert ours.get_status()["state"] == "closed"
    client.set("report", "1")
    os.kill(pid, signal.SIGCONT)
    assert children.join() == [0]
    status = ours.get_status()
    assert (status["state"], status["failure_count"]) == ("closed", 0)


def test_skewed_clocks_change_neither_the_open_period_nor_the_epochs(server: Server, until: Until) -> None:
    config = BreakerConfig(open_s=0.25, success_threshold=1, snapshot_s=0.01)
    early, late = (breaker_on(server, config, clock=Skewed(hours)) for hours in (-30, 30))
    opened = time.monotonic()
    open_it(late)
    assert not early.can_execute()
    until(early.can_execute, 3.0)
    assert time.monotonic() - opened >= 0.25
    early.record_success()
    assert late.get_status()["state"] == "closed"
    epochs = [epoch for _, _, epoch in transitions(server)]
    assert epochs == sorted(epochs)
    assert abs(epochs[-1] / 1000 - time.time()) < 60


def test_a_forked_child_neither_lets_calls_through_an_open_breaker_nor_tells_its_parents_batch(
    server: Server, children: Children
) -> None:
    config = BreakerConfig(counting=Counting.RATE, minimum_calls=1000, open_s=600)
    breaker = breaker_on(server, config)
    for _ in range(7):
        breaker.acquire().success()
    client = server.client(1.0)
    sockets = len(client.client_list())

    def child() -> None:
        breaker.acquire().success()
        breaker.flush()
        client.set("child saw", breaker.get_status()["window"]["calls"])

    children.run(child)
    assert children.join() == [0]
    assert client.get("child saw") == b"1", "the parent's seven successes are the parent's to tell"
    assert breaker.get_status()["window"]["calls"] == 8
    assert len(client.client_list()) == sockets
    breaker.open_for(600)

    def rejected() -> None:
        if any(breaker.can_execute() for _ in range(50)):
            os._exit(9)

    children.run(rejected, 2)
    assert children.join() == [0] * 3


def test_a_child_forked_while_a_thread_asks_is_not_locked_out(server: Server, children: Children) -> None:
    breaker = breaker_on(server, BreakerConfig(open_s=600))
    breaker._lock.acquire()
    breaker._asking.acquire()
    try:
        children.run(lambda: breaker.acquire().failure())
        assert children.join(5.0) == [0]
    finally:
        breaker._lock.release()
        breaker._asking.release()
    assert breaker.get_failure_count() == 1
