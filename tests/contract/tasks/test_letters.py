from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ConnectionFailedError, EncryptionError, ValidationError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.tasks.letters import MAX_AGE, Letter, LetterKind, LetterStore, RedisShelf, Shelf
from techdeck_tasks.testing.letters import InMemoryShelf

CLOCK = SystemClock()
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


NewShelf = Callable[..., Shelf]


@pytest.fixture(params=["redis", "memory"])
def new_shelf(request: pytest.FixtureRequest) -> NewShelf:
    """The same bodies run on Redis and on the shelf of `techdeck_tasks.testing`."""
    if request.param == "memory":
        return InMemoryShelf
    return partial(RedisShelf, request.getfixturevalue("redis_client"))


@pytest.fixture
def cipher() -> Cipher:
    return Cipher(KeySet("k", {"k": b"\0" * 32}))


@pytest.fixture
def store(new_shelf: NewShelf, cipher: Cipher) -> LetterStore:
    return LetterStore(new_shelf(LetterKind.DEAD), cipher, CLOCK)


@pytest.fixture
def redis_store(redis_client: redis.Redis, cipher: Cipher) -> LetterStore:
    return LetterStore(RedisShelf(redis_client, LetterKind.DEAD), cipher, CLOCK)


def test_a_letter_comes_back_as_it_was_put_in(store: LetterStore) -> None:
    kept = letter(requirements={"mend": "the file"})

    store.add(kept)

    assert store.get(kept.letter_id) == kept
    assert store.list() == [kept]
    assert store.count() == 1


def test_arguments_are_sealed_in_redis_and_absent_from_summary_and_repr(
    redis_store: LetterStore, redis_client: redis.Redis
) -> None:
    kept = letter()
    redis_store.add(kept)

    for key in redis_client.scan_iter():
        assert CANARY.encode() not in (redis_client.dump(key) or b"")
    assert CANARY not in repr(kept)
    assert CANARY not in str(kept.summary())


def test_a_letter_opens_only_under_its_own_id_and_key(
    redis_store: LetterStore, redis_client: redis.Redis
) -> None:
    first, second = letter(), letter()
    redis_store.add(first)
    redis_store.add(second)
    key = "{td:letters:dead}:"
    redis_client.copy(key + first.letter_id, key + second.letter_id, replace=True)

    with pytest.raises(EncryptionError):
        redis_store.get(second.letter_id)
    stranger = Cipher(KeySet("s", {"s": b"\1" * 32}))
    with pytest.raises(EncryptionError, match="not in this key ring"):
        LetterStore(RedisShelf(redis_client, LetterKind.DEAD), stranger, CLOCK).get(first.letter_id)


def test_the_newest_are_listed_first_and_the_oldest_give_way(new_shelf: NewShelf, cipher: Cipher) -> None:
    shelf = new_shelf(LetterKind.DEAD, max_letters=3)
    small = LetterStore(shelf, cipher, CLOCK)
    now = CLOCK.now()
    letters = [letter(failed_at=now + timedelta(seconds=number)) for number in range(5)]
    for kept in letters:
        small.add(kept)

    assert small.list() == letters[:1:-1]
    assert small.list(limit=1) == letters[-1:]
    assert shelf.read([kept.letter_id for kept in letters[:2]]) == [None, None]
    assert small.count() == 3


def test_letters_are_paged_each_once_also_those_of_the_same_moment(store: LetterStore) -> None:
    now = CLOCK.now()
    made = [letter(failed_at=now - timedelta(microseconds=number // 3)) for number in range(10)]
    for kept in made:
        store.add(kept)

    seen: list[Letter] = []
    while page := store.list(2, before=(seen[-1].failed_at, seen[-1].letter_id) if seen else None):
        seen += page

    assert sorted(seen, key=lambda one: one.letter_id) == sorted(made, key=lambda one: one.letter_id)
    assert [one.failed_at for one in seen] == sorted((one.failed_at for one in made), reverse=True)


def test_a_page_goes_on_where_its_last_letter_was_although_that_is_gone(store: LetterStore) -> None:
    now = CLOCK.now()
    letters = [letter(failed_at=now - timedelta(seconds=number)) for number in range(3)]
    for kept in letters:
        store.add(kept)
    store.take(letters[0].letter_id)

    assert store.list(5, before=(letters[0].failed_at, letters[0].letter_id)) == letters[1:]


def test_letters_that_expired_alone_do_not_shorten_a_page(
    redis_store: LetterStore, redis_client: redis.Redis
) -> None:
    now = CLOCK.now()
    letters = [letter(failed_at=now - timedelta(seconds=number)) for number in range(5)]
    for kept in letters:
        redis_store.add(kept)
    redis_client.delete(*["{td:letters:dead}:" + kept.letter_id for kept in letters[1:3]])

    assert redis_store.list(2) == [letters[0], letters[3]]


def test_what_is_too_old_is_gone(store: LetterStore) -> None:
    old = letter(failed_at=CLOCK.now() - MAX_AGE - timedelta(days=1))
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


def test_kinds_are_kept_apart(store: LetterStore, new_shelf: NewShelf, cipher: Cipher) -> None:
    waiting = LetterStore(new_shelf(LetterKind.INTERVENTION), cipher, CLOCK)
    waiting.add(letter(kind=LetterKind.INTERVENTION))

    assert waiting.count() == 1
    assert store.count() == 0
