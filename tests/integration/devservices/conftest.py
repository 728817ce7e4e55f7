"""What the tests of the embedded servers share: owners in other processes, and waiting for conditions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

import techdeck_tasks
from techdeck_tasks.devservices import DevServices, ServiceUrls
from techdeck_tasks.devservices.orphans import is_over

sys.path.append(str(Path(__file__).parent))  # tests and fixtures look at processes in one way

from family import is_named, is_watchdog

_PACKAGE_FOLDER = Path(techdeck_tasks.__file__).parents[1]
_DEADLINE_SECONDS = 20.0

Eventually = Callable[[Callable[[], bool]], None]
StartOwner = Callable[..., "Owner"]


@dataclass(frozen=True)
class Owner:
    """A process that started the servers, and everything that runs because of it."""

    process: subprocess.Popen[str]
    family: tuple[psutil.Process, ...]
    urls: ServiceUrls
    forked_pid: int | None

    def named(self, name: str) -> list[psutil.Process]:
        return [process for process in self.family if process.is_running() and is_named(process, name)]

    def watchdogs(self) -> list[psutil.Process]:
        return [process for process in self.family if is_watchdog(process)]


_OWNER_PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from techdeck_tasks.devservices import DevServices

folder = Path(sys.argv[1]) if sys.argv[1] else None
with DevServices(folder) as urls:
    forked = os.fork() if sys.argv[2] == "fork" else None
    if forked != 0:
        print(json.dumps([urls.redis_url, urls.database_url, forked]), flush=True)
    while True:
        signal.pause()
"""


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def eventually() -> Eventually:
    return _wait


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    owners: list[subprocess.Popen[str]] = []
    started: list[psutil.Process] = []

    def start(folder: Path | None = None, mode: str = "") -> Owner:
        process = subprocess.Popen(
            [sys.executable, "-c", _OWNER_PROGRAM, str(folder or ""), mode],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE_FOLDER), *sys.path])},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        owners.append(process)
        started.append(psutil.Process(process.pid))
        with process.stdout as output:
            line = output.readline()
        redis_url, database_url, forked_pid = json.loads(line)
        family = tuple(
            child for child in psutil.Process(process.pid).children(recursive=True) if child.pid != forked_pid
        )
        started.extend(family)
        if forked_pid:
            started.append(psutil.Process(forked_pid))
        return Owner(process, family, ServiceUrls(redis_url, database_url), forked_pid)

    yield start
    for process in started:
        if not is_over(process):
            process.kill()
    _wait(lambda: all(map(is_over, started)))
    for owner in owners:
        owner.wait()


@pytest.fixture(scope="session")
def services() -> Iterator[DevServices]:
    services = DevServices()
    with services:
        yield services


@pytest.fixture
def running(services: DevServices) -> ServiceUrls:
    return services.start()


@pytest.fixture
def answers() -> Callable[[ServiceUrls], bool]:
    return answer


def answer(urls: ServiceUrls) -> bool:
    with redis.Redis.from_url(urls.redis_url) as client:
        pong = bool(client.ping())
    with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT 1").fetchone()
    return pong and row == (1,)
