from __future__ import annotations

import dataclasses
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, create_engine, text

from techdeck_tasks.audit.canonical import encode
from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing import stream
from techdeck_tasks.audit.writing.drain import Drain
from techdeck_tasks.audit.writing.stream import GROUP, QUARANTINE, STREAM, AuditStream, pack
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock

# Newer Pythons warn of forking beside threads, which is what a Celery worker does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Eventually = Callable[[Callable[[], bool]], None]
NewDrain = Callable[..., Drain]
Send = Callable[..., list[SealedEvent]]


@pytest.fixture
def send(client: redis.Redis, sealer: Sealer, new_event: Callable[..., AuditEvent]) -> Send:
    def send(count: int, **values: Any) -> list[SealedEvent]:
        events = [sealer.seal(new_event(**values)) for _ in range(count)]
        stream.send(client, [pack(event) for event in events])
        return events

    return send


@pytest.fixture
def new_drain(client: redis.Redis, engine: Engine) -> Iterator[NewDrain]:
    made: list[Drain] = []

    def new(name: str = "audit@one", batch_size: int = 50, claim_idle_ms: int = 30_000) -> Drain:
        writer = AuditWriter(engine, name, SystemClock())
        drain = Drain(AuditStream(client, name), writer, batch_size, claim_idle_ms)
        made.append(drain)
        return drain

    yield new
    for drain in made:
        drain.stop()


def _rows(engine: Engine) -> int:
    with engine.begin() as connection:
        rows: int = connection.execute(text("SELECT count(*) FROM audit_event")).scalar_one()
    return rows


def _pending(client: redis.Redis) -> int:
    pending: int = client.xpending(STREAM, GROUP)["pending"]
    return pending


def _reasons(client: redis.Redis) -> list[bytes]:
    kept: Any = client.xrange(QUARANTINE)
    return [fields[b"reason"] for _, fields in kept]


def _assert_complete(engine: Engine, rows: int) -> None:
    report = verify(engine, timedelta(0))
    assert (report.rows, report.findings) == (rows, ())


def test_entries_become_rows_and_leave_the_stream(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    send(120)
    drain = new_drain()
    drain.start()
    send(30)
    eventually(lambda: client.xlen(STREAM) == 0)
    assert drain.written == 150
    assert _pending(client) == 0
    _assert_complete(engine, 150)


def test_without_postgresql_nothing_is_acknowledged_and_later_everything_is_written(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    drain = new_drain(batch_size=10)
    drain.start()
    send(20)
    eventually(lambda: client.xlen(STREAM) == 0)
    _allow_connections(engine, allowed=False)
    send(30)
    eventually(lambda: _pending(client) > 0)
    assert client.xlen(STREAM) == 30
    _allow_connections(engine, allowed=True)
    eventually(lambda: client.xlen(STREAM) == 0)
    _assert_complete(engine, 50)


def test_what_was_read_ahead_of_a_failed_batch_is_written_once(
    new_drain: NewDrain,
    send: Send,
    client: redis.Redis,
    engine: Engine,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drain = new_drain(batch_size=10)
    # No fault from outside comes at this very moment.
    read = drain._read_ahead
    failed: list[int] = []

    def read_and_fail() -> None:
        read()
        if not failed:
            failed.append(_pending(client))
            raise redis.ConnectionError("gone for a moment")

    monkeypatch.setattr(drain, "_read_ahead", read_and_fail)
    send(100)
    drain.start()
    eventually(lambda: client.xlen(STREAM) == 0)
    assert failed == [20]
    assert drain.written == 100
    _assert_complete(engine, 100)


def _allow_connections(engine: Engine, *, allowed: bool) -> None:
    admin = create_engine(engine.url.set(database="postgres"))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = engine.url.database
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"))
        if not allowed:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )
    admin.dispose()


def test_a_flushed_redis_costs_no_later_event(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    drain = new_drain()
    drain.start()
    send(5)
    eventually(lambda: drain.written == 5)
    client.delete(STREAM)
    send(5)
    eventually(lambda: drain.written == 10)


def test_poison_is_quarantined_with_its_reason_and_blocks_nothing(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    (known,) = send(1)
    client.xadd(STREAM, {"nothing": b"known"})
    twisted = encode(dataclasses.replace(known.record, severity="low"))
    keyless = dataclasses.replace(known.data_key, sealed_key=b"")
    stream.send(
        client,
        [
            b"no payload",
            pack(dataclasses.replace(known, encoded=b"no record")),
            pack(dataclasses.replace(known, encoded=twisted)),
            pack(dataclasses.replace(known, data_key=keyless)),
            pack(known),
        ],
    )
    send(10)
    drain = new_drain()
    drain.start()
    eventually(lambda: client.xlen(STREAM) == 0)
    _assert_complete(engine, 11)
    assert sorted(_reasons(client)) == [
        b"audit payload carries no data key",
        b"audit payload is malformed",
        b"audit payload is malformed",
        b"audit record of 9 bytes is not canonical: ValueError",
        b"its id is on record with other content",
    ]
    assert _pending(client) == 0


def test_what_postgresql_alone_refuses_is_quarantined_alone(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event ADD CHECK (service <> 'cursed')"))
    send(5)
    send(1, service="cursed")
    send(5)
    drain = new_drain()
    drain.start()
    eventually(lambda: client.xlen(STREAM) == 0)
    assert _rows(engine) == 10
    assert _reasons(client) == [b"PostgreSQL refuses it: CheckViolation"]


def test_a_dead_consumers_entries_are_written_by_another(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    send(30)
    dead = AuditStream(client, "audit@dead")
    dead.ensure_group()
    assert len(dead.read(20, None)) == 20
    new_drain(claim_idle_ms=1).start()
    eventually(lambda: client.xlen(STREAM) == 0)
    _assert_complete(engine, 30)


def test_a_worker_that_is_always_busy_still_takes_over_a_dead_ones_entries(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    (held,) = send(1)
    dead = AuditStream(client, "audit@dead")
    dead.ensure_group()
    dead.read(1, None)
    send(100)
    new_drain(batch_size=1, claim_idle_ms=1).start()
    eventually(lambda: client.xlen(STREAM) == 0)
    with engine.begin() as connection:
        statement = text("SELECT writer_seq FROM audit_event WHERE event_id = :id")
        place = connection.execute(statement, {"id": held.record.event_id}).scalar_one()
    assert place < 50


def test_a_restart_under_the_same_name_goes_on_where_the_last_one_was_killed(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    sent = send(20)
    # Killed between commit and acknowledgement of the first ten, and before the commit of the others.
    before = AuditStream(client, "audit@one")
    before.ensure_group()
    before.read(20, None)
    AuditWriter(engine, "audit@one", SystemClock()).write(sent[:10])
    drain = new_drain()
    drain.start()
    eventually(lambda: client.xlen(STREAM) == 0)
    assert drain.written == 10
    _assert_complete(engine, 20)


def test_stopping_writes_what_is_ready(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine
) -> None:
    send(500)
    drain = new_drain(batch_size=20)
    drain.start()
    drain.stop()
    assert (client.xlen(STREAM), _rows(engine)) == (0, 500)


def test_stopping_waits_for_the_batch_in_hand(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    drain = new_drain()
    drain.start()
    send(5)
    eventually(lambda: drain.written == 5)
    with engine.connect() as holding:
        holding.execute(text("SELECT * FROM audit_writer_head FOR UPDATE"))
        send(5)
        eventually(lambda: _pending(client) > 0)
        stopping = threading.Thread(target=drain.stop)
        stopping.start()
    stopping.join()
    assert (client.xlen(STREAM), _rows(engine)) == (0, 10)


def test_stopping_is_bounded_when_postgresql_hangs_and_nothing_is_acknowledged(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    drain = new_drain()
    drain.start()
    send(5)
    eventually(lambda: drain.written == 5)
    with engine.connect() as holding:
        holding.execute(text("SELECT * FROM audit_writer_head FOR UPDATE"))
        send(5)
        eventually(lambda: _pending(client) > 0)
        began = time.monotonic()
        drain.stop(timeout_s=0.1)
        assert time.monotonic() - began < 2
        assert _pending(client) > 0
    eventually(lambda: _pending(client) == 0)
    _assert_complete(engine, 10 - client.xlen(STREAM))


def test_stopping_is_bounded_however_much_keeps_coming(
    new_drain: NewDrain, send: Send, client: redis.Redis, engine: Engine, eventually: Eventually
) -> None:
    drain = new_drain(batch_size=1)
    send(3000)
    drain.start()
    began = time.monotonic()
    drain.stop(timeout_s=0.2)
    assert time.monotonic() - began < 3
    assert client.xlen(STREAM) > 0
    # On a busy machine the batch in hand may outlast the stop.
    eventually(lambda: _pending(client) == 0)
    assert _rows(engine) == 3000 - client.xlen(STREAM)


def test_stopping_a_drain_that_never_started_returns_at_once(new_drain: NewDrain) -> None:
    new_drain().stop()


@pytest.mark.chaos
def test_killed_again_and_again_every_event_is_written_once_in_intact_chains(
    new_drain: NewDrain,
    send: Send,
    client: redis.Redis,
    engine: Engine,
    eventually: Eventually,
    chaos_round: int,
) -> None:
    rounds, events = 10, 200
    for number in range(rounds):
        send(events)
        left = client.xlen(STREAM)
        # Two at a time: the one of this round, and one whose name comes again.
        children = [_fork_drain(engine, client, name) for name in (f"audit@{number}", "audit@same")]
        progress = 1 + secrets.randbelow(events)
        eventually(lambda left=left, progress=progress: client.xlen(STREAM) <= left - progress)  # type: ignore[misc]  # bound early
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    new_drain("audit@last", claim_idle_ms=1).start()
    eventually(lambda: client.xlen(STREAM) == 0)
    assert client.xlen(QUARANTINE) == 0
    _assert_complete(engine, rounds * events)


def _fork_drain(engine: Engine, client: redis.Redis, name: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            engine.dispose(close=False)
            writer = AuditWriter(engine, name, SystemClock())
            Drain(AuditStream(client, name), writer, batch_size=20, claim_idle_ms=1).start()
            signal.pause()
        finally:
            os._exit(1)
    return pid
