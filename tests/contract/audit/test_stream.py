from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.backlog import read_backlog
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import (
    GROUP,
    MAX_QUARANTINED,
    QUARANTINE,
    QUARANTINED,
    STREAM,
    AuditStream,
    Delivery,
    pack,
    send,
)
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.redis_client import connect_redis


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.delete(STREAM, QUARANTINE, QUARANTINED)
        yield client


@pytest.fixture
def send_new(
    client: redis.Redis, sealer: Sealer, new_event: Callable[..., AuditEvent]
) -> Callable[[int], list[bytes]]:
    def new(count: int) -> list[bytes]:
        payloads = [pack(sealer.seal(new_event())) for _ in range(count)]
        send(client, payloads)
        return payloads

    return new


@pytest.fixture
def stream(client: redis.Redis) -> AuditStream:
    stream = AuditStream(client, "one")
    stream.ensure_group()
    return stream


def _payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.payload for delivery in deliveries]


def _pending(client: redis.Redis) -> int:
    pending: int = client.xpending(STREAM, GROUP)["pending"]
    return pending


def test_entries_come_in_order_as_many_as_asked_and_once(
    stream: AuditStream, send_new: Callable[[int], list[bytes]]
) -> None:
    sent = send_new(5)
    assert _payloads(stream.read(3, None)) == sent[:3]
    assert _payloads(stream.read(3, 10)) == sent[3:]
    assert stream.read(3, None) == []
    assert stream.read(3, 5) == []


def test_the_group_sees_what_was_sent_before_it_was_made(
    client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    sent = send_new(2)
    late = AuditStream(client, "late")
    for _ in range(2):
        late.ensure_group()
    assert _payloads(late.read(10, None)) == sent


def test_an_acknowledged_entry_leaves_the_stream(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    send_new(3)
    read = stream.read(10, None)
    stream.acknowledge(read[:2])
    stream.acknowledge([])
    assert (client.xlen(STREAM), _pending(client)) == (1, 1)
    assert stream.read_unacknowledged(10) == read[2:]


def test_two_consumers_share_the_payloads(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    other = AuditStream(client, "two")
    sent = send_new(4)
    assert _payloads(stream.read(2, None)) + _payloads(other.read(2, None)) == sent


def test_a_restart_under_the_same_name_finds_what_it_had(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    sent = send_new(3)
    stream.read(2, None)
    again = AuditStream(client, "one")
    assert _payloads(again.read_unacknowledged(10)) == sent[:2]
    assert AuditStream(client, "two").read_unacknowledged(10) == []


def test_what_a_silent_consumer_holds_is_claimed_by_another(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    sent = send_new(3)
    stream.read(3, None)
    other = AuditStream(client, "two")
    assert other.claim(10, 60_000) == []
    assert _payloads(other.claim(2, 0)) == sent[:2]
    assert _payloads(other.read_unacknowledged(10)) == sent[:2]
    assert _payloads(stream.read_unacknowledged(10)) == sent[2:]


def test_a_quarantined_entry_is_kept_with_its_reason_and_never_delivered_again(
    stream: AuditStream, client: redis.Redis
) -> None:
    send(client, [b"no record"])
    (poison,) = stream.read(1, None)
    stream.quarantine(poison, "no record at all")
    assert (client.xlen(STREAM), _pending(client)) == (0, 0)
    kept: Any = client.xrange(QUARANTINE)
    ((_, fields),) = kept
    assert fields == {b"e": b"no record", b"reason": b"no record at all"}


def test_stream_and_quarantine_lie_in_one_cluster_slot(client: redis.Redis) -> None:
    def hashed(key: str) -> str:
        return key[key.index("{") + 1 : key.index("}")] if "{" in key else key

    assert hashed(STREAM) == hashed(QUARANTINE)


def test_an_entry_deleted_by_somebody_harms_no_other(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    sent = send_new(3)
    read = stream.read(3, None)
    client.xdel(STREAM, read[0].entry_id)
    own = stream.read_unacknowledged(10)
    assert _payloads(own) == [b"", *sent[1:]]
    assert _payloads(AuditStream(client, "two").claim(10, 0)) == sent[1:]


def test_fields_that_nobody_knows_are_ignored(stream: AuditStream, client: redis.Redis) -> None:
    client.xadd(STREAM, {"x": b"y"})
    assert _payloads(stream.read(1, None)) == [b""]


def test_the_quarantine_is_bounded_and_counts_what_it_ever_held(
    stream: AuditStream, client: redis.Redis
) -> None:
    with client.pipeline(transaction=False) as pipe:
        for _ in range(MAX_QUARANTINED + 500):
            pipe.xadd(QUARANTINE, {"e": b""})
        pipe.set(QUARANTINED, MAX_QUARANTINED + 500)
        pipe.execute()
    send(client, [b"no record"])
    (poison,) = stream.read(1, None)
    stream.quarantine(poison, "no record at all")
    # About: Redis cuts whole nodes of a hundred entries.
    assert MAX_QUARANTINED <= client.xlen(QUARANTINE) < MAX_QUARANTINED + 200
    assert client.get(QUARANTINED) == str(MAX_QUARANTINED + 501).encode()


def _names(client: redis.Redis) -> set[bytes]:
    found: Any = client.xinfo_consumers(STREAM, GROUP)
    return {consumer["name"] for consumer in found}


def test_a_dead_consumer_is_forgotten_only_once_it_holds_nothing(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]]
) -> None:
    send_new(2)
    held = stream.read(1, None)
    other = AuditStream(client, "two")
    other.acknowledge(other.read(1, None))
    assert stream.forget_dead_consumers() == 0
    assert stream.forget_dead_consumers(silent_ms=0) == 1
    assert _names(client) == {b"one"}
    stream.acknowledge(held)
    assert stream.forget_dead_consumers(silent_ms=0) == 1
    assert _names(client) == set()


def test_where_there_is_no_stream_or_no_group_nothing_is_forgotten(client: redis.Redis) -> None:
    assert AuditStream(client, "one").forget_dead_consumers() == 0
    client.xadd(STREAM, {"x": b"y"})
    assert AuditStream(client, "one").forget_dead_consumers() == 0


def test_the_backlog_counts_what_is_on_its_way(
    stream: AuditStream, client: redis.Redis, send_new: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool")
    empty = read_backlog(client, spool, datetime.now(UTC))
    assert (empty.stream_entries, empty.oldest_age_s, empty.spool_files) == (0, 0.0, 0)
    send_new(3)
    read = stream.read(2, None)
    stream.quarantine(read[0], "poison")
    spool.append(b"payload")
    found = read_backlog(client, spool, datetime.now(UTC))
    assert (found.stream_entries, found.pending_entries) == (2, 1)
    assert (found.consumers, found.dead_consumers) == (1, 0)
    assert (found.quarantined_entries, found.quarantined_total) == (1, 1)
    assert (found.spool_files, found.spool_bytes, found.damaged_spool_files) == (1, 19, 0)
    assert found.redis_reachable
    assert found.oldest_age_s is not None
    assert 0 <= found.oldest_age_s < 60


def test_the_backlog_of_a_stream_that_nobody_reads_yet_is_its_length(
    client: redis.Redis, tmp_path: Path
) -> None:
    spool = Spool(tmp_path)
    assert read_backlog(client, spool, datetime.now(UTC)).stream_entries == 0
    send(client, [b"x"])
    found = read_backlog(client, spool, datetime.now(UTC))
    assert (found.stream_entries, found.pending_entries, found.consumers) == (1, 0, 0)


def test_without_redis_the_backlog_still_tells_of_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"payload")
    nobody = connect_redis(load_settings(redis_url="redis://127.0.0.1:1/0"))
    found = read_backlog(nobody, spool, datetime.now(UTC))
    assert (found.redis_reachable, found.stream_entries, found.spool_files) == (False, None, 1)
