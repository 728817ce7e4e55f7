"""Producers, audit workers, Redis and PostgreSQL are killed at random; no event may be lost or doubled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, text

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.drain import Drain
from techdeck_tasks.audit.writing.publisher import StreamPublisher
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import QUARANTINE, STREAM, AuditStream
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices import EmbeddedPostgres, EmbeddedRedis
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database
from techdeck_tasks.storage.redis_client import connect_redis

# Newer Pythons warn of forking beside threads, which is what a Celery worker does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

PRODUCERS = 3
EVENTS, EVENTS_OF_A_LONG_RUN = 1_500, 20_000
KILLS = 10


class Processes:
    """Forked children that do one thing until they are done or killed."""

    def __init__(self) -> None:
        self._running: set[int] = set()

    def start(self, body: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                body()
                code = 0
            finally:
                os._exit(code)
        self._running.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        if pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._running.discard(pid)

    def has_ended(self, pid: int) -> bool:
        """Whether it is done, which must have gone well, or was killed."""
        if pid in self._running:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                return False
            self._running.discard(pid)
            assert status == 0
        return True

    def kill_all(self) -> None:
        for pid in list(self._running):
            self.kill(pid)


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.kill_all()


class Servers:
    """Redis and PostgreSQL that lose nothing they acknowledged, however they end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._redis = EmbeddedRedis(folder, port=free_port())
        self._postgres = EmbeddedPostgres(folder, port=free_port())
        self.start()

    def start(self) -> None:
        self._postgres.start()
        self._redis.start()
        with self.client() as client:
            client.config_set("appendfsync", "always")

    def stop(self) -> None:
        self._redis.stop()
        self._postgres.stop()

    def client(self, timeout_s: float = 0.25) -> redis.Redis:
        return connect_redis(load_settings(redis_url=self._redis.url, redis_timeout_seconds=timeout_s))

    def engine(self) -> Engine:
        return connect_database(load_settings(database_url=self._postgres.url))

    def kill_redis(self) -> None:
        _kill(self._folder / "redis" / "redis.pid")
        self.start()

    def kill_postgres(self) -> None:
        _kill(self._folder / "postgres" / "cluster" / "postmaster.pid")
        self.start()


def _kill(pid_file: Path) -> None:
    with suppress(ProcessLookupError):
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


@pytest.mark.chaos
def test_whatever_is_killed_every_event_is_on_record_once_in_intact_chains(
    servers: Servers,
    processes: Processes,
    sealer: Sealer,
    new_event: Callable[..., AuditEvent],
    eventually: Callable[[Callable[[], bool]], None],
    tmp_path: Path,
    chaos_round: int,
    request: pytest.FixtureRequest,
) -> None:
    long_run = request.config.getoption("--chaos-rounds") > 1 and chaos_round == 0
    events = EVENTS_OF_A_LONG_RUN if long_run else EVENTS
    rng = random.Random()
    spool, kept = tmp_path / "spool", tmp_path / "kept"
    migrating = servers.engine()
    migration.upgrade(migrating)
    migrating.dispose()

    def produce() -> None:
        publisher = StreamPublisher(servers.client(), sealer, Spool(spool), SystemClock())
        with kept.open("ab", buffering=0) as told:
            for _ in range(events // PRODUCERS):
                event = new_event()
                publisher.record(event)
                told.write(event.event_id.bytes)
        publisher.flush()

    def work(name: str) -> None:
        writer = AuditWriter(servers.engine(), name, SystemClock())
        Drain(AuditStream(servers.client(5.0), name), writer, batch_size=40, claim_idle_ms=200).start()
        signal.pause()

    def acknowledged() -> int:
        return kept.stat().st_size // 16 if kept.exists() else 0

    producers = [processes.start(produce) for _ in range(PRODUCERS)]
    workers = {name: processes.start(lambda name=name: work(name)) for name in ("audit@1", "audit@2")}  # type: ignore[misc]  # bound early
    # Each is killed at least once, in any order; one producer is, and once only.
    parts = ["worker", "redis", "postgres"]
    victims = [*parts, *rng.choices(parts, k=KILLS - 4)]
    victims.append("producer")
    rng.shuffle(victims)
    for number, victim in enumerate(victims):
        due = (number + rng.random()) * events / PRODUCERS * (PRODUCERS - 1) / KILLS
        eventually(lambda due=due: acknowledged() >= due or all(map(processes.has_ended, producers)))  # type: ignore[misc]  # bound early
        if victim == "producer":
            processes.kill(rng.choice(producers))
        elif victim == "worker":
            name = rng.choice(list(workers))
            processes.kill(workers[name])
            workers[name] = processes.start(lambda name=name: work(name))  # type: ignore[misc]  # bound early
        elif victim == "redis":
            servers.kill_redis()
        else:
            servers.kill_postgres()
    eventually(lambda: all(map(processes.has_ended, producers)))

    upkeep = StreamPublisher(servers.client(), sealer, Spool(spool), SystemClock())
    with servers.client() as client:
        eventually(lambda: upkeep.replay() == 0 and Spool(spool).is_empty() and client.xlen(STREAM) == 0)
        assert client.xlen(QUARANTINE) == 0
    assert not list(spool.glob("*.damaged"))
    engine = servers.engine()
    report = verify(engine, timedelta(0))
    with engine.begin() as connection:
        rows = set(connection.execute(text("SELECT event_id FROM audit_event")).scalars())
        gaps = connection.execute(
            text("SELECT count(*) FROM audit_event WHERE event_type = 'gap'")
        ).scalar_one()
    engine.dispose()
    told = kept.read_bytes()
    promised = {told[start : start + 16] for start in range(0, len(told), 16)}
    missing = promised - {row.bytes for row in rows}
    assert not missing
    # The producer that was killed may have handed over one event more than it could tell.
    assert len(promised) <= len(rows) == report.rows <= len(promised) + 1
    assert (report.findings, gaps) == ((), 0)
