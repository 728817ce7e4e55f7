from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.publisher import COOLDOWN_S, RESENDING, StreamPublisher
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import STREAM, pack, unpack
from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.redis_client import connect_redis
from techdeck_tasks.testing.clock import FakeClock

# Newer Pythons warn of forking beside threads, which is what a Celery worker does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that may be stopped and started: its data stay."""
    server = EmbeddedRedis(tmp_path / "redis", port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with connect_redis(load_settings(redis_url=server.url)) as client:
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "waiting")


@pytest.fixture
def publisher(own: redis.Redis, sealer: Sealer, spool: Spool, clock: FakeClock) -> StreamPublisher:
    return StreamPublisher(own, sealer, spool, clock)


def _sent(client: redis.Redis) -> list[bytes]:
    entries: Any = client.xrange(STREAM)
    return [fields[b"e"] for _, fields in entries]


def _sequence(client: redis.Redis) -> list[int]:
    return [unpack(payload).record.producer_seq for payload in _sent(client)]


def test_an_event_goes_to_redis_in_one_round_trip_and_leaves_nothing_on_disk(
    publisher: StreamPublisher, own: redis.Redis, spool: Spool, new_event: Callable[..., AuditEvent]
) -> None:
    publisher.record(new_event())
    before = own.info("commandstats")["cmdstat_xadd"]["calls"]
    publisher.record(new_event())
    assert own.info("commandstats")["cmdstat_xadd"]["calls"] == before + 1
    assert _sequence(own) == [1, 2]
    assert spool.is_empty()


def test_an_outage_is_bounded_in_time_and_replayed_in_order_afterwards(
    publisher: StreamPublisher,
    server: EmbeddedRedis,
    own: redis.Redis,
    clock: FakeClock,
    new_event: Callable[..., AuditEvent],
) -> None:
    publisher.record(new_event())
    server.stop()
    began = time.monotonic()
    for _ in range(20):
        publisher.record(new_event())
    assert time.monotonic() - began < 2
    server.start()
    clock.sleep(COOLDOWN_S)
    publisher.record(new_event())
    # The event that found Redis back goes first; what waited follows in its order.
    assert _sequence(own) == [1, 22, *range(2, 22)]


def test_replaying_takes_everything_that_waits_whoever_left_it(
    publisher: StreamPublisher,
    own: redis.Redis,
    spool: Spool,
    sealer: Sealer,
    new_event: Callable[..., AuditEvent],
) -> None:
    for _ in range(3):
        spool.append(pack(sealer.seal(new_event())))
    assert publisher.replay() == 3
    assert publisher.replay() == 0
    assert _sequence(own) == [1, 2, 3]


def test_a_spooled_payload_that_nobody_understands_reaches_the_quarantine_not_the_floor(
    publisher: StreamPublisher, own: redis.Redis, spool: Spool
) -> None:
    spool.append(b"from a version to come")
    assert publisher.replay() == 1
    assert _sent(own) == [b"from a version to come"]


def test_a_spool_that_cannot_be_read_harms_no_event(
    own: redis.Redis, sealer: Sealer, clock: FakeClock, tmp_path: Path, new_event: Callable[..., AuditEvent]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    publisher = StreamPublisher(own, sealer, Spool(tmp_path / "file"), clock)
    publisher.record(new_event())
    assert _sequence(own) == [1]


def test_parent_and_forked_child_both_reach_redis(
    publisher: StreamPublisher, own: redis.Redis, new_event: Callable[..., AuditEvent]
) -> None:
    publisher.record(new_event())
    child = os.fork()
    if child == 0:
        publisher.record(new_event())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    publisher.record(new_event())
    records = [unpack(payload).record for payload in _sent(own)]
    assert [record.producer_seq for record in records] == [1, 1, 2]
    assert len({record.producer_id for record in records}) == 2


def test_an_idle_producer_sends_what_waits_soon_after_redis_is_back(
    publisher: StreamPublisher,
    server: EmbeddedRedis,
    own: redis.Redis,
    spool: Spool,
    new_event: Callable[..., AuditEvent],
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    others = set(threading.enumerate())
    server.stop()
    for _ in range(3):
        publisher.record(new_event())
    server.start()
    eventually(spool.is_empty)
    assert _sequence(own) == [1, 2, 3]
    eventually(lambda: not {one for one in threading.enumerate() if one.name == RESENDING} - others)


def test_an_idle_producer_tells_of_its_gap_soon_after_redis_is_back(
    server: EmbeddedRedis,
    own: redis.Redis,
    sealer: Sealer,
    clock: FakeClock,
    tmp_path: Path,
    new_event: Callable[..., AuditEvent],
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    publisher = StreamPublisher(own, sealer, Spool(tmp_path / "full", max_bytes=1), clock)
    server.stop()
    for _ in range(3):
        publisher.record(new_event())
    clock.sleep(COOLDOWN_S)
    server.start()
    eventually(lambda: bool(_sent(own)))
    (record,) = (unpack(payload).record for payload in _sent(own))
    assert (record.event_type, record.outcome, record.producer_seq) == ("gap", "lost 3: 1-3", 4)


def test_a_redis_that_is_full_sends_events_to_the_spool_and_takes_them_once_it_has_room(
    publisher: StreamPublisher,
    own: redis.Redis,
    spool: Spool,
    clock: FakeClock,
    new_event: Callable[..., AuditEvent],
) -> None:
    publisher.record(new_event())
    own.config_set("maxmemory", "1")
    for _ in range(3):
        publisher.record(new_event())
    assert _sequence(own) == [1]
    assert not spool.is_empty()
    own.config_set("maxmemory", "0")
    clock.sleep(COOLDOWN_S)
    publisher.record(new_event())
    assert sorted(_sequence(own)) == [1, 2, 3, 4, 5]
    assert spool.is_empty()
