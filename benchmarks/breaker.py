"""What a Redis-shared circuit breaker costs a call, next to its peers, on the same Redis in the same run.

Round trips are the top-level commands that INFO commandstats counts (what a script calls inside Redis is no
round trip), background polling included. Peers that are not installed are named and left out:
``pip install pybreaker purgatory interlock-cb``.

Run: python -m benchmarks breaker
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import redis

from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.errors import CircuitBreakerError
from techdeck_tasks.resilience.breaker import BreakerConfig, CircuitBreaker
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis

CALLS = 2000
CYCLES = 50
NEVER = 10**9
LONG_S = 3600.0
DUE_S = 0.002
SETUP = frozenset({"hello", "client", "auth", "select", "ping", "info", "config", "command"})


class Boom(Exception):  # noqa: N818 - short, for it is everywhere
    """The other side failed."""


class Contender(Protocol):
    @property
    def name(self) -> str:
        """The distribution's name."""

    @property
    def round_trips(self) -> frozenset[str] | None:
        """Which commands come from the client; None: all, it uses no scripts."""

    def start(self, *, threshold: int, open_s: float) -> None:
        """Make a new, closed breaker."""

    def run(self, calls: int, *, fail: bool) -> int:
        """Make so many calls; how many were rejected."""

    def stop(self) -> None:
        """Let go of everything."""


class Ours:
    name = "techdeck_tasks"
    round_trips = frozenset({"eval", "evalsha"})

    def __init__(self, url: str) -> None:
        self._client = connect_redis(Settings(redis_url=url))

    def start(self, *, threshold: int, open_s: float) -> None:
        config = BreakerConfig(
            failure_threshold=threshold, success_threshold=1, open_s=open_s, open_cap_s=LONG_S
        )
        self._breaker = CircuitBreaker(f"bench-{uuid.uuid4().hex}", self._client, config)
        self.run(1, fail=False)

    def run(self, calls: int, *, fail: bool) -> int:
        rejected = 0
        for _ in range(calls):
            try:
                with self._breaker.acquire():
                    if fail:
                        raise Boom  # noqa: TRY301 - the call that is guarded
            except Boom:
                pass
            except CircuitBreakerError:
                rejected += 1
        return rejected

    def stop(self) -> None:
        self._client.close()


class Pybreaker:
    name = "pybreaker"
    round_trips = None

    def __init__(self, url: str) -> None:
        self._module: Any = import_module("pybreaker")
        self._client = redis.Redis.from_url(url)

    def start(self, *, threshold: int, open_s: float) -> None:
        storage = self._module.CircuitRedisStorage("closed", self._client, namespace=uuid.uuid4().hex)
        # Its clock counts whole seconds: 0 is the shortest it can wait.
        self._breaker = self._module.CircuitBreaker(
            fail_max=threshold, reset_timeout=0 if open_s == DUE_S else open_s, state_storage=storage
        )
        self.run(1, fail=False)

    def run(self, calls: int, *, fail: bool) -> int:
        rejected = 0
        for _ in range(calls):
            try:
                with self._breaker.calling():
                    if fail:
                        raise Boom  # noqa: TRY301 - the call that is guarded
            except Boom:
                pass
            except self._module.CircuitBreakerError:
                rejected += 1
        return rejected

    def stop(self) -> None:
        self._client.close()


class Purgatory:
    """By its async back end: the sync one builds an asyncio client and fails."""

    name = "purgatory"
    round_trips = None

    def __init__(self, url: str) -> None:
        self._module: Any = import_module("purgatory")
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._work = self._module.AsyncRedisUnitOfWork(url)
        self._loop.run_until_complete(self._work.initialize())

    def start(self, *, threshold: int, open_s: float) -> None:
        self._factory = self._module.AsyncCircuitBreakerFactory(
            default_threshold=threshold, default_ttl=open_s, uow=self._work
        )
        self._name = uuid.uuid4().hex
        self.run(1, fail=False)

    def run(self, calls: int, *, fail: bool) -> int:
        return self._loop.run_until_complete(self._run(calls, fail=fail))

    async def _run(self, calls: int, *, fail: bool) -> int:
        rejected = 0
        for _ in range(calls):
            try:
                async with await self._factory.get_breaker(self._name):
                    if fail:
                        raise Boom  # noqa: TRY301 - the call that is guarded
            except Boom:
                pass
            except self._module.domain.model.OpenedState:
                rejected += 1
        return rejected

    def stop(self) -> None:
        self._loop.run_until_complete(self._work.contexts.redis.aclose())
        self._loop.close()


class Interlock:
    name = "interlock-cb"
    round_trips = frozenset({"eval", "evalsha", "hgetall"})

    def __init__(self, url: str) -> None:
        self._module: Any = import_module("interlock")
        self._storage: Any = import_module("interlock.integrations.redis").RedisStorage
        self._client = redis.Redis.from_url(url)
        self._breaker: Any = None

    def start(self, *, threshold: int, open_s: float) -> None:
        self.stop_breaker()
        # It has no consecutive count: all of the last `threshold` calls must fail.
        size = min(threshold, CALLS * 10)
        config = self._module.Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=size,
            window_size=size,
            permitted_calls_in_half_open=1,
            wait_duration_in_open=open_s,
        )
        poll_s = 0.005 if open_s == DUE_S else 1.0
        self._breaker = self._module.CircuitBreaker(
            name=uuid.uuid4().hex, config=config, storage=self._storage(self._client, poll_interval=poll_s)
        )
        self.run(1, fail=False)

    def run(self, calls: int, *, fail: bool) -> int:
        rejected = 0
        for _ in range(calls):
            try:
                with self._breaker:
                    if fail:
                        raise Boom  # noqa: TRY301 - the call that is guarded
            except Boom:
                pass
            except self._module.CircuitOpenError:
                rejected += 1
        return rejected

    def stop_breaker(self) -> None:
        if self._breaker is not None:
            self._breaker.close()

    def stop(self) -> None:
        self.stop_breaker()
        self._client.close()


CONTENDERS: dict[str, tuple[str, Callable[[str], Contender]]] = {
    "techdeck_tasks": ("techdeck_tasks", Ours),
    "pybreaker": ("pybreaker", Pybreaker),
    "purgatory": ("purgatory", Purgatory),
    "interlock-cb": ("interlock", Interlock),
}


class Meter:
    """Counts what a contender sends while it is measured."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True)

    def measure(
        self, contender: Contender, work: Callable[[], None], calls: int, *, wait_s: float = 0.0
    ) -> tuple[float, float]:
        """Return (round trips, microseconds), each per call.

        During `wait_s` before the calls round trips count, the time does not: pollers work meanwhile.
        """
        self._client.config_resetstat()
        time.sleep(wait_s)
        started = time.perf_counter()
        work()
        elapsed_s = time.perf_counter() - started
        return self._round_trips(contender) / calls, elapsed_s / calls * 1e6

    def _round_trips(self, contender: Contender) -> int:
        counted = 0
        for name, numbers in self._client.info("commandstats").items():
            command = name.removeprefix("cmdstat_").split("|")[0]
            if command in SETUP or (
                contender.round_trips is not None and command not in contender.round_trips
            ):
                continue
            counted += int(numbers["calls"])
        return counted


def closed_success(contender: Contender, meter: Meter) -> tuple[float, float]:
    contender.start(threshold=NEVER, open_s=LONG_S)
    return meter.measure(contender, lambda: _expect(contender.run(CALLS, fail=False), 0), CALLS)


def closed_failure(contender: Contender, meter: Meter) -> tuple[float, float]:
    contender.start(threshold=NEVER, open_s=LONG_S)
    return meter.measure(contender, lambda: _expect(contender.run(CALLS, fail=True), 0), CALLS)


def open_reject(contender: Contender, meter: Meter) -> tuple[float, float]:
    contender.start(threshold=5, open_s=LONG_S)
    _trip(contender)
    return meter.measure(contender, lambda: _expect(contender.run(CALLS, fail=False), CALLS), CALLS)


def probe(contender: Contender, meter: Meter) -> tuple[float, float]:
    """From the opening on: the call that finds the breaker due, probes and closes it."""
    trips = micros = 0.0
    for _ in range(CYCLES):
        contender.start(threshold=5, open_s=DUE_S)
        _trip(contender)
        # Long enough for the open period, and for the poller that moves interlock on.
        cost = meter.measure(
            contender, lambda: _expect(contender.run(1, fail=False), 0), 1, wait_s=DUE_S * 10
        )
        trips, micros = trips + cost[0], micros + cost[1]
    return trips / CYCLES, micros / CYCLES


def _trip(contender: Contender) -> None:
    for _ in range(100):
        if contender.run(1, fail=True):
            return
    raise AssertionError(f"{contender.name} does not trip")


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise AssertionError(f"{found} of {wanted} calls were rejected")


SCENARIOS = (closed_success, closed_failure, open_reject, probe)


def main() -> None:
    """Print a row for each contender: round trips and time of a call."""
    logging.getLogger("techdeck_tasks").setLevel(logging.ERROR)
    server = EmbeddedRedis()
    server.start()
    try:
        compare(server.url)
    finally:
        server.stop()


def compare(url: str) -> None:
    """Measure every installed contender on the Redis at `url`."""
    meter = Meter(url)
    print("round trips and microseconds a call; loopback")
    print(f"{'':16}{'closed success':>22}{'closed failure':>22}{'open reject':>22}{'probe that closes':>22}")
    for name, (module, make) in CONTENDERS.items():
        if find_spec(module) is None:
            print(f"{name:16}{'not installed, not measured':>22}")
            continue
        contender = make(url)
        costs = []
        for scenario in SCENARIOS:
            try:
                trips, micros = scenario(contender, meter)
                costs.append(f"{trips:8.3f} rt {micros:8.2f} us")
            except Exception as failure:  # noqa: BLE001 - a peer that fails is a result
                costs.append(f"{type(failure).__name__}")
        print(f"{name:16}" + "".join(f"{cost:>22}" for cost in costs))
        contender.stop()


if __name__ == "__main__":
    main()
