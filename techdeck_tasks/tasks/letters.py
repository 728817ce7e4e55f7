"""Tasks that ended for good, or wait for a person: kept sealed, to be looked at and sent again.

A Redis string a letter, which expires by itself, and a sorted set of their ids by time. The oldest give way
where there are too many: a store that fills up with failures must not take the broker down.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self, cast

from kombu.utils import json
from redis import Redis

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import TechDeckError, ValidationError
from techdeck_tasks.keyring import Cipher

MAX_LETTERS = 10_000
MAX_AGE = timedelta(days=180)
_PREFIX = "td:letter:"
_AAD = b"techdeck-letter-1|"


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


class LetterStore:
    """Letters of one kind, bounded by number and age.

    Args:
        client: bounded by its own timeout. Redis errors pass through.
        cipher: seals what is kept.
        clock: tells what is too old.
        kind: which letters.
        max_letters: the oldest beyond it are dropped.
    """

    def __init__(
        self,
        client: Redis,
        cipher: Cipher,
        clock: Clock,
        kind: LetterKind,
        *,
        max_letters: int = MAX_LETTERS,
    ) -> None:
        self._redis = client
        self._cipher = cipher
        self._clock = clock
        self._kind = kind
        self._index = f"td:letters:{kind}"
        self._max_letters = max_letters

    def add(self, letter: Letter) -> None:
        """Keep `letter`."""
        document = {**asdict(letter), "failed_at": letter.failed_at.isoformat()}
        sealed = self._cipher.seal(json.dumps(document).encode(), _aad(letter.letter_id))
        oldest = (self._clock.now() - MAX_AGE).timestamp()
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(_PREFIX + letter.letter_id, sealed, ex=MAX_AGE)
            pipe.zadd(self._index, {letter.letter_id: letter.failed_at.timestamp()})
            pipe.zremrangebyscore(self._index, "-inf", oldest)
            pipe.zcard(self._index)
            excess = pipe.execute()[-1] - self._max_letters
        if excess > 0:
            popped = cast("list[tuple[bytes, float]]", self._redis.zpopmin(self._index, excess))
            self._redis.unlink(*[_PREFIX + letter_id.decode() for letter_id, _ in popped])

    def list(self, limit: int = 100) -> list[Letter]:
        """Return the newest letters, newest first."""
        ids = [raw.decode() for raw in cast("list[bytes]", self._redis.zrevrange(self._index, 0, limit - 1))]
        if not ids:
            return []
        sealed = cast("list[bytes | None]", self._redis.mget([_PREFIX + letter_id for letter_id in ids]))
        return [
            self._open(letter_id, raw) for letter_id, raw in zip(ids, sealed, strict=True) if raw is not None
        ]

    def get(self, letter_id: str) -> Letter:
        """Return one letter; its id may be shortened to its first characters.

        Raises:
            ValidationError: there is none, or more than one begins so.
        """
        whole = self._whole_id(letter_id)
        raw = cast("bytes | None", self._redis.get(_PREFIX + whole))
        if raw is None:
            raise self._unknown(letter_id)
        return self._open(whole, raw)

    def take(self, letter_id: str) -> Letter:
        """Remove one letter and return it; of two who take it, one gets it.

        Raises:
            ValidationError: there is none, or it was taken meanwhile.
        """
        letter = self.get(letter_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.unlink(_PREFIX + letter.letter_id)
            pipe.zrem(self._index, letter.letter_id)
            removed = pipe.execute()[0]
        if not removed:
            raise self._unknown(letter_id)
        return letter

    def count(self) -> int:
        """Return how many there are."""
        return int(self._redis.zcard(self._index))

    def _whole_id(self, letter_id: str) -> str:
        ids = [raw.decode() for raw in cast("list[bytes]", self._redis.zrevrange(self._index, 0, -1))]
        matching = [known for known in ids if known.startswith(letter_id)]
        if len(matching) > 1:
            raise ValidationError(
                f"{len(matching)} {self._kind} letters begin with {letter_id!r}; give more of the id",
                field="letter_id",
            )
        if not matching or not letter_id:
            raise self._unknown(letter_id)
        return matching[0]

    def _unknown(self, letter_id: str) -> ValidationError:
        return ValidationError(
            f"there is no {self._kind} letter {letter_id!r}; it was sent, dropped, or never kept",
            field="letter_id",
        )

    def _open(self, letter_id: str, sealed: bytes) -> Letter:
        document = json.loads(self._cipher.open(sealed, _aad(letter_id)))
        document["failed_at"] = datetime.fromisoformat(document["failed_at"])
        document["kind"] = LetterKind(document["kind"])
        return Letter(**document)


def _aad(letter_id: str) -> bytes:
    return _AAD + letter_id.encode()
