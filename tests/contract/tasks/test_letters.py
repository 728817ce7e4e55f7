from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ConnectionFailedError, EncryptionError, ValidationError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.tasks.letters import MAX_AGE, Letter, LetterKind, LetterStore

CANARY = "canary-argument-4711"


def letter(**changes: Any) -> Letter:
    facts: dict[str, Any] = {
        "kind": LetterKind.DEAD,
        "task_name": "lab.fetch",
        "task_id": "t-1",
        "signature": {"task": "lab.fetch", "args": [CANARY, 2], "kwargs": {"who": CANARY}, "options": {}},
        "service": "lab",
        "attempts": 4,
        "failed_at": SystemClock().now(),
    }
    return Letter.of(ConnectionFailedError("the lab is away"), **(facts | changes))


@pytest.fixture
def store(runtime: Runtime, redis_client: redis.Redis) -> LetterStore:
    return LetterStore(redis_client, runtime.cipher, runtime.clock, LetterKind.DEAD)


def test_a_letter_comes_back_as_it_was_put_in(store: LetterStore) -> None:
    kept = letter(requirements={"mend": "the file"})

    store.add(kept)

    assert store.get(kept.letter_id) == kept
    assert store.list() == [kept]
    assert store.count() == 1


def test_arguments_are_sealed_in_redis_and_absent_from_summary_and_repr(
    store: LetterStore, redis_client: redis.Redis
) -> None:
    kept = letter()
    store.add(kept)

    for key in redis_client.scan_iter():
        assert CANARY.encode() not in (redis_client.dump(key) or b"")
    assert CANARY not in repr(kept)
    assert CANARY not in str(kept.summary())


def test_a_letter_opens_only_under_its_own_id_and_key(
    store: LetterStore, redis_client: redis.Redis, runtime: Runtime
) -> None:
    first, second = letter(), letter()
    store.add(first)
    store.add(second)
    redis_client.copy(f"td:letter:{first.letter_id}", f"td:letter:{second.letter_id}", replace=True)

    with pytest.raises(EncryptionError):
        store.get(second.letter_id)
    stranger = Cipher(KeySet("k", {"k": b"\1" * 32}))
    with pytest.raises(EncryptionError, match="not in this key ring"):
        LetterStore(redis_client, stranger, runtime.clock, LetterKind.DEAD).get(first.letter_id)


def test_the_newest_are_listed_first_and_the_oldest_give_way(
    redis_client: redis.Redis, runtime: Runtime
) -> None:
    small = LetterStore(redis_client, runtime.cipher, runtime.clock, LetterKind.DEAD, max_letters=3)
    now = runtime.clock.now()
    letters = [letter(failed_at=now + timedelta(seconds=number)) for number in range(5)]
    for kept in letters:
        small.add(kept)

    assert small.list() == letters[:1:-1]
    assert small.list(limit=1) == letters[-1:]
    assert len(list(redis_client.scan_iter("td:letter:*"))) == 3


def test_what_is_too_old_is_gone(store: LetterStore, runtime: Runtime) -> None:
    old = letter(failed_at=runtime.clock.now() - MAX_AGE - timedelta(days=1))
    store.add(old)
    store.add(letter())

    assert store.count() == 1


def test_an_id_may_be_shortened_while_it_is_unique(store: LetterStore) -> None:
    first = letter(letter_id="aaaa-1")
    store.add(first)
    store.add(letter(letter_id="aaab-2"))

    assert store.get("aaaa") == first
    with pytest.raises(ValidationError, match="2 dead letters begin with 'aaa'"):
        store.get("aaa")
    with pytest.raises(ValidationError, match="no dead letter 'b'"):
        store.get("b")


def test_of_two_who_take_a_letter_one_gets_it(store: LetterStore) -> None:
    kept = letter()
    store.add(kept)

    def take(_: int) -> bool:
        try:
            return store.take(kept.letter_id) == kept
        except ValidationError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1
    assert store.count() == 0


def test_kinds_are_kept_apart(store: LetterStore, redis_client: redis.Redis, runtime: Runtime) -> None:
    waiting = LetterStore(redis_client, runtime.cipher, runtime.clock, LetterKind.INTERVENTION)
    waiting.add(letter(kind=LetterKind.INTERVENTION))

    assert waiting.count() == 1
    assert store.count() == 0
