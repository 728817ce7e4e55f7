from __future__ import annotations

import pytest
import redis

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.tasks.quarantine import KEYS, Quarantine, QuarantinedMessage

CANARY = b"canary-quarantined-2291"


def quarantine(runtime: Runtime, **bounds: int) -> Quarantine:
    return Quarantine(runtime.redis, runtime.cipher, runtime.clock, **bounds)


def test_a_message_comes_back_as_it_was_found_and_is_sealed_meanwhile(
    runtime: Runtime, redis_client: redis.Redis
) -> None:
    store = quarantine(runtime)

    kept = store.add("undecodable", CANARY, queue="lab", headers={"task": "t"}, properties={"priority": 0})

    assert store.list() == [kept]
    assert store.get(kept.message_id[:8]) == kept
    assert CANARY not in (redis_client.dump(KEYS[0]) or b"")
    assert CANARY.decode() not in f"{kept!r} {kept.summary()}"


def test_the_newest_come_first_and_the_oldest_give_way_to_the_number(
    runtime: Runtime, redis_client: redis.Redis
) -> None:
    store = quarantine(runtime, max_messages=3)

    for number in range(5):
        store.add(f"reason {number}", b"body", queue="lab")

    assert [message.reason for message in store.list()] == ["reason 4", "reason 3", "reason 2"]
    assert [message.reason for message in store.list(2)] == ["reason 4", "reason 3"]
    assert store.count() == redis_client.hlen(KEYS[0]) == 3


def test_messages_are_paged_each_once(runtime: Runtime, redis_client: redis.Redis) -> None:
    store = quarantine(runtime)
    made = {store.add("undecodable", b"body", queue="lab").message_id for _ in range(5)}

    seen: list[QuarantinedMessage] = []
    while page := store.list(2, before=(seen[-1].received_at, seen[-1].message_id) if seen else None):
        seen += page

    assert len(seen) == 5
    assert {message.message_id for message in seen} == made


def test_the_oldest_give_way_to_the_size_and_the_newest_always_stays(
    runtime: Runtime, redis_client: redis.Redis
) -> None:
    store = quarantine(runtime, max_bytes=10_000)

    for number in range(4):
        store.add(f"reason {number}", b"x" * 3000, queue="lab")
    assert [message.reason for message in store.list()] == ["reason 3", "reason 2"]
    store.add("huge", b"x" * 50_000, queue="lab")

    assert [message.reason for message in store.list()] == ["huge"]
    store.take(store.list()[0].message_id)
    assert redis_client.get(KEYS[2]) == b"0"


def test_of_two_who_take_a_message_one_gets_it(runtime: Runtime, redis_client: redis.Redis) -> None:
    store = quarantine(runtime)
    kept = store.add("undecodable", b"body", queue="lab")

    assert store.take(kept.message_id) == kept
    with pytest.raises(ValidationError, match="no message"):
        store.take(kept.message_id)


def test_an_ambiguous_or_empty_id_is_refused(runtime: Runtime, redis_client: redis.Redis) -> None:
    store = quarantine(runtime)
    for _ in range(17):
        store.add("undecodable", b"body", queue="lab")

    shared = next(c for c in "0123456789abcdef" if sum(m.message_id.startswith(c) for m in store.list()) > 1)
    with pytest.raises(ValidationError, match="more of the id"):
        store.get(shared)
    with pytest.raises(ValidationError, match="no message"):
        store.get("")
