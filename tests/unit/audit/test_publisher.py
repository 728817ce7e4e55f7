from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.publisher import COOLDOWN_S, StreamPublisher
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import pack, unpack
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.settings import FailPolicy
from techdeck_tasks.testing.clock import FakeClock

# Newer Pythons warn of forking beside threads, which is what a Celery worker does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def nobody() -> Iterator[redis.Redis]:
    """A client of a Redis that is not there."""
    client = redis.Redis(
        port=free_port(), socket_timeout=0.25, socket_connect_timeout=0.25, retry=Retry(NoBackoff(), 0)
    )
    yield client
    client.close()


@pytest.fixture
def publisher(nobody: redis.Redis, sealer: Sealer, spool: Spool, clock: FakeClock) -> StreamPublisher:
    return StreamPublisher(nobody, sealer, spool, clock)


def _spooled(spool: Spool) -> list[bytes]:
    taken: list[bytes] = []

    def take(payloads: Sequence[bytes]) -> None:
        taken.extend(payloads)

    spool.drain(take)
    return taken


def test_without_redis_events_wait_sealed_in_the_spool_in_their_order(
    publisher: StreamPublisher, spool: Spool, new_event: Callable[..., AuditEvent]
) -> None:
    events = [new_event(document={"message": "plaintext"}) for _ in range(5)]
    for event in events:
        publisher.record(event)
    spooled = _spooled(spool)
    assert [unpack(payload).record.event_id for payload in spooled] == [event.event_id for event in events]
    assert not [payload for payload in spooled if b"plaintext" in payload]


def test_an_outage_costs_one_attempt_a_cooldown(
    publisher: StreamPublisher,
    clock: FakeClock,
    new_event: Callable[..., AuditEvent],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        publisher.record(new_event())
    assert caplog.text.count("audit stream unavailable") == 1
    clock.sleep(COOLDOWN_S)
    publisher.record(new_event())
    assert caplog.text.count("audit stream unavailable") == 2


def test_a_redis_that_hangs_costs_a_bounded_time(
    sealer: Sealer, spool: Spool, clock: FakeClock, new_event: Callable[..., AuditEvent]
) -> None:
    # A peer that never answers: the far end of a pipe of sockets.
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = redis.Redis(
            port=server.getsockname()[1],
            socket_timeout=0.2,
            socket_connect_timeout=0.2,
            retry=Retry(NoBackoff(), 0),
        )
        began = time.monotonic()
        StreamPublisher(client, sealer, spool, clock).record(new_event())
        assert time.monotonic() - began < 1.5
        client.close()
    assert len(_spooled(spool)) == 1


@pytest.fixture
def full(tmp_path: Path) -> Spool:
    """A spool that takes nothing."""
    return Spool(tmp_path / "full", max_bytes=1)


NewEvent = Callable[..., AuditEvent]


def test_by_default_an_event_that_nobody_can_keep_is_counted_and_told_and_work_goes_on(
    nobody: redis.Redis,
    sealer: Sealer,
    full: Spool,
    clock: FakeClock,
    new_event: NewEvent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = StreamPublisher(nobody, sealer, full, clock)
    for _ in range(3):
        publisher.record(new_event())
    assert [entry.levelname for entry in caplog.records].count("CRITICAL") == 1
    assert "audit events are being lost" in caplog.text


def test_under_a_closed_policy_an_event_that_nobody_can_keep_is_refused_with_the_remedy(
    nobody: redis.Redis, sealer: Sealer, full: Spool, clock: FakeClock, new_event: NewEvent
) -> None:
    publisher = StreamPublisher(nobody, sealer, full, clock, {"critical": FailPolicy.CLOSED})
    publisher.record(new_event(severity="high"))
    with pytest.raises(AuditUnavailableError, match="TECHDECK_AUDIT_SPOOL_DIR"):
        publisher.record(new_event(severity="critical"))


def test_under_a_closed_policy_the_spool_will_do(
    nobody: redis.Redis, sealer: Sealer, spool: Spool, clock: FakeClock, new_event: NewEvent
) -> None:
    StreamPublisher(nobody, sealer, spool, clock, {"high": FailPolicy.CLOSED}).record(new_event())
    assert len(_spooled(spool)) == 1


def test_under_an_open_policy_no_disk_is_waited_for(
    nobody: redis.Redis, sealer: Sealer, spool: Spool, clock: FakeClock, new_event: NewEvent
) -> None:
    StreamPublisher(nobody, sealer, spool, clock, {"high": FailPolicy.OPEN}).record(new_event())
    assert spool.is_empty()


@pytest.mark.parametrize(
    "event_type", [EventType.AUDIT_READ, EventType.OPERATOR_ACTION, EventType.BREAKER_TRANSITION]
)
def test_what_must_not_be_done_unaudited_is_refused_under_any_policy(
    event_type: EventType,
    nobody: redis.Redis,
    sealer: Sealer,
    full: Spool,
    clock: FakeClock,
    new_event: NewEvent,
) -> None:
    publisher = StreamPublisher(nobody, sealer, full, clock, {"high": FailPolicy.OPEN})
    with pytest.raises(AuditUnavailableError):
        publisher.record(new_event(event_type=event_type))


def test_once_the_spool_has_room_again_the_gap_is_on_record_with_its_numbers(
    nobody: redis.Redis,
    sealer: Sealer,
    spool: Spool,
    clock: FakeClock,
    new_event: NewEvent,
    tmp_path: Path,
) -> None:
    probe = Spool(tmp_path / "probe")
    probe.append(pack(sealer.seal(new_event())))
    tight = Spool(tmp_path / "spool", max_bytes=3 * probe.size().size_bytes)
    publisher = StreamPublisher(nobody, sealer, tight, clock, {"critical": FailPolicy.CLOSED})
    for _ in range(5):
        publisher.record(new_event())
    with pytest.raises(AuditUnavailableError):
        publisher.record(new_event(severity="critical"))
    kept = [unpack(payload).record.producer_seq for payload in _spooled(tight)]
    publisher.record(new_event())
    after = [unpack(payload).record for payload in _spooled(tight)]
    # One more number was taken before: by the first event of all, which measured the size.
    assert kept == [2, 3, 4]
    assert [(record.event_type, record.outcome) for record in after] == [
        ("error_handling", None),
        ("gap", "lost 3: 5-7"),
    ]
    numbers = {*kept, 5, 6, 7, *(record.producer_seq for record in after)}
    assert numbers == set(range(2, 10))


def test_replaying_without_redis_sends_nothing_keeps_everything_and_raises_nothing(
    publisher: StreamPublisher, spool: Spool, new_event: Callable[..., AuditEvent]
) -> None:
    publisher.record(new_event())
    assert publisher.replay() == 0
    assert len(_spooled(spool)) == 1


def test_a_forked_child_spools_under_a_number_of_its_own(
    publisher: StreamPublisher, spool: Spool, new_event: Callable[..., AuditEvent]
) -> None:
    publisher.record(new_event())
    child = os.fork()
    if child == 0:
        publisher.record(new_event())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    publisher.record(new_event())
    records = [unpack(payload).record for payload in _spooled(spool)]
    places = sorted((record.producer_id, record.producer_seq) for record in records)
    assert len(places) == len(set(places)) == 3
    assert sorted(seq for _, seq in places) == [1, 1, 2]
