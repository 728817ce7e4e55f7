"""Tasks that ended for good, or wait for a person: kept sealed, to be looked at and sent again.

They lie in Redis and expire by themselves. The oldest give way where there are too many: a store that fills
up with failures must not take the broker down. All letters of a kind share a cluster slot.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, Self, cast

from kombu.utils import json
from redis import Redis

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import TechDeckError, ValidationError
from techdeck_tasks.keyring import Cipher
from techdeck_tasks.storage import cursors, timeline
from techdeck_tasks.storage.redis_client import Script
from techdeck_tasks.storage.timeline import Place

MAX_LETTERS = 10_000
MAX_AGE = timedelta(days=180)
_AAD = b"techdeck-letter-1|"
_PUT = Script.load("techdeck_tasks.tasks", "lua/letter_put.lua")


class LetterKind(StrEnum):
    """Why a task is kept."""

    DEAD = "dead"
    """It failed for good."""
    INTERVENTION = "intervention"
    """It waits until a person has mended something, and goes on then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A task as it was when it ended.

    Attributes:
        signature: Celery's signature of it, JSON-safe: arguments, queue, links and the rest of its chain.
        error: the last error, as `TechDeckError.to_dict`.
        attempts: how many were made.
        breaker: the breaker that a replay asks first; None: it asks none.
        requirements: for an intervention: what a person has to do.
    """

    kind: LetterKind
    task_name: str
    task_id: str
    signature: Mapping[str, Any] = field(repr=False)
    service: str
    error: Mapping[str, Any]
    attempts: int
    failed_at: datetime
    breaker: str | None = None
    requirements: Mapping[str, Any] = field(default_factory=dict)
    letter_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def of(cls, error: TechDeckError, **facts: Any) -> Self:
        """Return the letter of a task that ended with `error`."""
        return cls(error=error.to_dict(), **facts)

    def summary(self) -> dict[str, Any]:
        """Return what may be shown without the arguments; JSON-safe."""
        return {
            "letter_id": self.letter_id,
            "kind": self.kind,
            "task_name": self.task_name,
            "task_id": self.task_id,
            "service": self.service,
            "error_code": self.error["error_code"],
            "error_id": self.error["error_id"],
            "message": self.error["message"],
            "attempts": self.attempts,
            "failed_at": self.failed_at.isoformat(),
            "requirements": dict(self.requirements),
        }


class Shelf(Protocol):
    """Where the sealed letters of one kind lie, in the order of their time."""

    kind: LetterKind

    def put(self, letter_id: str, sealed: bytes, at: datetime, oldest: datetime) -> None:
        """Keep a letter of the time `at`; drop what is older than `oldest`, and the oldest of too many."""

    def ids(self) -> list[str]:
        """Return the ids of all letters."""

    def places(self, limit: int, before: Place | None = None) -> list[Place]:
        """Return the places of the newest letters, newest first; after the place `before` in that order."""

    def read(self, letter_ids: Sequence[str]) -> list[bytes | None]:
        """Return those letters; None for one that is gone."""

    def remove(self, letter_id: str) -> bool:
        """Remove a letter; False where it is gone already."""

    def count(self) -> int:
        """Return how many letters there are."""


class RedisShelf:
    """A Redis string a letter, and a sorted set of their ids by time.

    Args:
        client: bounded by its own timeout. Redis errors pass through.
        kind: which letters.
        max_letters: the oldest beyond it are dropped.
    """

    def __init__(self, client: Redis, kind: LetterKind, *, max_letters: int = MAX_LETTERS) -> None:
        self.kind = kind
        self._redis = client
        self._tag = f"{{td:letters:{kind}}}:"
        self._times = f"{self._tag}times"
        self._max_letters = max_letters

    def put(self, letter_id: str, sealed: bytes, at: datetime, oldest: datetime) -> None:
        """Keep a letter, in one round trip; in two where others give way."""
        keys = (self._tag + letter_id, self._times)
        args = (letter_id, sealed, at.timestamp(), int(MAX_AGE.total_seconds()), oldest.timestamp())
        excess = int(_PUT(self._redis, keys, args)) - self._max_letters
        if excess > 0:
            popped = cast("list[tuple[bytes, float]]", self._redis.zpopmin(self._times, excess))
            self._redis.unlink(*[self._tag + letter_id.decode() for letter_id, _ in popped])

    def ids(self) -> list[str]:
        """Return the ids of all letters."""
        return [raw.decode() for raw in cast("list[bytes]", self._redis.zrange(self._times, 0, -1))]

    def places(self, limit: int, before: Place | None = None) -> list[Place]:
        """Return the places of the newest letters, newest first; after the place `before` in that order."""
        return timeline.places(self._redis, self._times, limit, before)

    def read(self, letter_ids: Sequence[str]) -> list[bytes | None]:
        """Return those letters; None for one that is gone."""
        if not letter_ids:
            return []
        keys = [self._tag + letter_id for letter_id in letter_ids]
        return cast("list[bytes | None]", self._redis.mget(keys))

    def remove(self, letter_id: str) -> bool:
        """Remove a letter; False where it is gone already."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.unlink(self._tag + letter_id)
            pipe.zrem(self._times, letter_id)
            return bool(pipe.execute()[0])

    def count(self) -> int:
        """Return how many letters there are."""
        return int(self._redis.zcard(self._times))


class LetterStore:
    """Letters of one kind, bounded by number and age.

    Args:
        shelf: keeps them; its errors pass through.
        cipher: seals what is kept.
        clock: tells what is too old.
    """

    def __init__(self, shelf: Shelf, cipher: Cipher, clock: Clock) -> None:
        self._shelf = shelf
        self._cipher = cipher
        self._clock = clock

    def add(self, letter: Letter) -> None:
        """Keep `letter`."""
        # Not `asdict`, which copies the whole signature first.
        document = {one.name: getattr(letter, one.name) for one in fields(letter)}
        document["failed_at"] = letter.failed_at.isoformat()
        sealed = self._cipher.seal(json.dumps(document).encode(), _aad(letter.letter_id))
        self._shelf.put(letter.letter_id, sealed, letter.failed_at, self._clock.now() - MAX_AGE)

    def list(self, limit: int = 100, before: Place | None = None) -> list[Letter]:
        """Return the newest letters, newest first.

        Args:
            limit: at most so many; fewer mean that there are no more.
            before: `failed_at` and `letter_id` of the letter that the page before ended with.
        """
        found = timeline.kept(self._shelf.places, self._shelf.read, limit, before)
        return [self._open(letter_id, raw) for letter_id, raw in found]

    def page(self, limit: int, cursor: str | None = None) -> tuple[Sequence[Letter], str | None]:
        """Return a page of letters, newest first, and the cursor of the next one if there is one.

        Raises:
            ValidationError: `cursor` is of no page.
        """
        found = self.list(limit + 1, before=cursors.position(cursor))
        return cursors.page(found, limit, lambda letter: (letter.failed_at, letter.letter_id))

    def get(self, letter_id: str) -> Letter:
        """Return one letter; its id may be shortened to its first characters.

        Raises:
            ValidationError: there is none, or more than one begins so.
        """
        whole = self._whole_id(letter_id)
        (raw,) = self._shelf.read([whole])
        if raw is None:
            raise self._unknown(letter_id)
        return self._open(whole, raw)

    def take(self, letter_id: str) -> Letter:
        """Remove one letter and return it; of two who take it, one gets it.

        Raises:
            ValidationError: there is none, or it was taken meanwhile.
        """
        letter = self.get(letter_id)
        if not self._shelf.remove(letter.letter_id):
            raise self._unknown(letter_id)
        return letter

    def count(self) -> int:
        """Return how many there are."""
        return self._shelf.count()

    def _whole_id(self, letter_id: str) -> str:
        matching = [known for known in self._shelf.ids() if known.startswith(letter_id)]
        if len(matching) > 1:
            raise ValidationError(
                f"{len(matching)} {self._shelf.kind} letters begin with {letter_id!r}; give more of the id",
                field="letter_id",
            )
        if not matching or not letter_id:
            raise self._unknown(letter_id)
        return matching[0]

    def _unknown(self, letter_id: str) -> ValidationError:
        return ValidationError(
            f"there is no {self._shelf.kind} letter {letter_id!r}; it was sent, dropped, or never kept",
            field="letter_id",
        )

    def _open(self, letter_id: str, sealed: bytes) -> Letter:
        document = json.loads(self._cipher.open(sealed, _aad(letter_id)))
        document["failed_at"] = datetime.fromisoformat(document["failed_at"])
        document["kind"] = LetterKind(document["kind"])
        return Letter(**document)


def _aad(letter_id: str) -> bytes:
    return _AAD + letter_id.encode()
