"""A Redis of the test's own, that may be stopped, killed, restarted and emptied."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from techdeck_tasks.devservices.binaries import redis_binary
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.redis_client import connect_redis

PASSWORD = "integration-only"

HIGHEST_PORT = 55_000
"""A cluster's nodes talk on the port 10,000 above."""


def wait_until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.002)


class PrivateRedis:
    """One server process on a port that stays the same over restarts; keeps nothing on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        while self.port > HIGHEST_PORT:
            self.port = free_port()
        self._folder = folder
        self._options = options
        self.start()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                str(redis_binary()),
                *self._options,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD),
                *("--dir", str(self._folder), "--save", "", "--appendonly", "no", "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(self.answers)
        except AssertionError:
            self.kill()
            raise

    def answers(self) -> bool:
        client = redis.Redis(port=self.port, password=PASSWORD, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        with suppress(redis.RedisError), client:
            return bool(client.ping())
        return False

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def client(self, timeout_s: float = 0.1) -> redis.Redis:
        return connect_redis(Settings(redis_url=self.url, redis_timeout_seconds=timeout_s))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    server = PrivateRedis(tmp_path)
    yield server
    server.signal(signal.SIGCONT)
    server.kill()


class Children:
    """Forked processes that run a function of the test; none outlives it."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self.processes: list[multiprocessing.process.BaseProcess] = []

    def run(self, target: Callable[[], object], count: int = 1) -> None:
        for _ in range(count):
            process = self._context.Process(target=target)
            process.start()
            self.processes.append(process)

    def join(self, deadline_s: float = 15.0) -> list[int | None]:
        end = time.monotonic() + deadline_s
        for process in self.processes:
            process.join(max(end - time.monotonic(), 0.01))
        return [process.exitcode for process in self.processes]

    def stop(self) -> None:
        for process in self.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, signal.SIGKILL)
            process.join()


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.stop()


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., PrivateRedis]]:
    servers: list[PrivateRedis] = []

    def new(*options: str) -> PrivateRedis:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(PrivateRedis(folder, *options))
        return servers[-1]

    yield new
    for server in servers:
        server.kill()
