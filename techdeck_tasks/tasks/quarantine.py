"""Messages that no worker can read: kept sealed, to be looked at, sent again or dropped."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

from celery import Celery
from redis import Redis

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import Cipher
from techdeck_tasks.storage import cursors, timeline
from techdeck_tasks.storage.redis_client import Script
from techdeck_tasks.storage.timeline import Place
from techdeck_tasks.tasks.broker import outages_told
from techdeck_tasks.tasks.messaging import bind_body

MAX_MESSAGES: Final = 10_000
MAX_BYTES: Final = 256 * 1024 * 1024

KEYS: Final = ("{td:quarantine}:messages", "{td:quarantine}:times", "{td:quarantine}:bytes")
"""Hash of sealed messages by id, their ids by time, and their size in all."""

_MESSAGES, _TIMES, _ = KEYS
_ADD = Script.load("techdeck_tasks.tasks", "lua/quarantine_add.lua")
_TAKE = Script.load("techdeck_tasks.tasks", "lua/quarantine_take.lua")
_AAD = b"techdeck-quarantine-2|"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedMessage:
    """A message as it was found.

    Attributes:
        reason: why no worker could run it.
        body: as it was sent, sealed or not.
        queue: the list it came from; a replay puts it there again.
        headers: of a task's message; None for an item that is no message at all.
        properties: the broker's; None as above.
    """

    reason: str
    received_at: datetime
    body: bytes = field(repr=False)
    queue: str
    headers: Any = field(default=None, repr=False)
    properties: Any = field(default=None, repr=False)
    content_type: str | None = None
    content_encoding: str | None = None
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def summary(self) -> dict[str, Any]:
        """Return what may be shown without its contents; JSON-safe."""
        headers = self.headers if isinstance(self.headers, Mapping) else {}
        return {
            "message_id": self.message_id,
            "reason": self.reason,
            "received_at": self.received_at.isoformat(),
            "queue": self.queue,
            "task_name": str(headers.get("task")) if "task" in headers else None,
            "task_id": str(headers.get("id")) if "id" in headers else None,
            "content_type": self.content_type,
            "size_bytes": len(self.body),
        }

    def document(self) -> dict[str, Any]:
        """Return all of it, JSON-safe; `body` is base64."""
        return {
            **self.summary(),
            "headers": self.headers,
            "properties": self.properties,
            "content_encoding": self.content_encoding,
            "body": base64.b64encode(self.body).decode(),
        }


class Quarantine:
    """Sealed messages in Redis, bounded by number and size; the oldest give way.

    Args:
        client: bounded by its own timeout. Redis errors pass through.
        cipher: seals what is kept; a poisonous message may hold a patient's data.
        clock: tells when.
        max_messages: at most so many.
        max_bytes: at most so much in all; the newest stays even where it alone is more.
    """

    def __init__(
        self,
        client: Redis,
        cipher: Cipher,
        clock: Clock,
        *,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._redis = client
        self._cipher = cipher
        self._clock = clock
        self._bounds = (max_messages, max_bytes)

    def add(self, reason: str, body: bytes, *, queue: str, **facts: Any) -> QuarantinedMessage:
        """Keep a message, with what else is known of it, and return it.

        Raises:
            RedisError: Redis is away; the message must not be acknowledged.
            EncryptionError: this process holds no message keys; as above.
        """
        message = QuarantinedMessage(
            reason=reason, received_at=self._clock.now(), body=body, queue=queue, **facts
        )
        self.put(message)
        return message

    def put(self, message: QuarantinedMessage) -> None:
        """Keep `message` under its id."""
        document = json.dumps(message.document(), default=str).encode()
        sealed = self._cipher.seal(document, _AAD + message.message_id.encode())
        received = message.received_at.timestamp()
        _ADD(self._redis, KEYS, [message.message_id, sealed, received, *self._bounds])

    def list(self, limit: int = 100, before: Place | None = None) -> list[QuarantinedMessage]:
        """Return the newest messages, newest first.

        Args:
            limit: at most so many; fewer mean that there are no more.
            before: `received_at` and `message_id` of the message that the page before ended with.
        """
        found = timeline.kept(partial(timeline.places, self._redis, _TIMES), self._read, limit, before)
        return [self._open(message_id, sealed) for message_id, sealed in found]

    def page(self, limit: int, cursor: str | None = None) -> tuple[Sequence[QuarantinedMessage], str | None]:
        """Return a page of messages, newest first, and the cursor of the next one if there is one.

        Raises:
            ValidationError: `cursor` is of no page.
        """
        found = self.list(limit + 1, before=cursors.position(cursor))
        return cursors.page(found, limit, lambda message: (message.received_at, message.message_id))

    def count(self) -> int:
        """Return how many there are."""
        return int(self._redis.zcard(_TIMES))

    def get(self, message_id: str) -> QuarantinedMessage:
        """Return one message; its id may be shortened to its first characters.

        Raises:
            ValidationError: there is none, or more than one begins so.
        """
        ids = [raw.decode() for raw in cast("list[bytes]", self._redis.zrange(_TIMES, 0, -1))]
        matching = [known for known in ids if message_id and known.startswith(message_id)]
        if len(matching) > 1:
            raise ValidationError(
                f"{len(matching)} messages begin with {message_id!r}; give more of the id", field="message_id"
            )
        sealed = cast("bytes | None", self._redis.hget(_MESSAGES, matching[0])) if matching else None
        if sealed is None:
            raise _unknown(message_id)
        return self._open(matching[0], sealed)

    def take(self, message_id: str) -> QuarantinedMessage:
        """Remove one message and return it; of two who take it, one gets it.

        Raises:
            ValidationError: there is none, or it was taken meanwhile.
        """
        message = self.get(message_id)
        if not _TAKE(self._redis, KEYS, [message.message_id]):
            raise _unknown(message_id)
        return message

    def replay(self, app: Celery, message_id: str) -> None:
        """Put a message back into its queue, now that a worker can read it; else it comes back here.

        A body that was sealed before bodies named their task is sealed again for the task it was found with.

        Raises:
            ValidationError: there is no such message, it is no message at all, or its body belongs to
                another task.
            ServiceUnavailableError: the broker is away; the message stays here.
        """
        found = self.get(message_id)
        if not isinstance(found.headers, Mapping) or not isinstance(found.properties, Mapping):
            raise ValidationError(
                f"{found.message_id} is no message ({found.reason}): nobody could ever read it; drop it",
                field="message_id",
            )
        body = bind_body(self._cipher, found.body, found.content_type, found.headers)
        message = self.take(found.message_id)
        properties = {
            name: found.properties[name]
            for name in ("correlation_id", "reply_to", "priority", "delivery_mode")
            if name in found.properties
        }
        try:
            with outages_told(str(found.headers.get("task"))), app.producer_or_acquire() as producer:
                producer.publish(
                    body,
                    exchange="",
                    routing_key=message.queue,
                    content_type=message.content_type,
                    content_encoding=message.content_encoding,
                    headers=dict(found.headers),
                    **properties,
                )
        except BaseException:
            self.put(message)
            raise

    def _read(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        return cast("list[bytes | None]", self._redis.hmget(_MESSAGES, [*ids])) if ids else []

    def _open(self, message_id: str, sealed: bytes) -> QuarantinedMessage:
        document = json.loads(self._cipher.open(sealed, _AAD + message_id.encode()))
        return QuarantinedMessage(
            reason=document["reason"],
            received_at=datetime.fromisoformat(document["received_at"]),
            body=base64.b64decode(document["body"]),
            queue=document["queue"],
            headers=document["headers"],
            properties=document["properties"],
            content_type=document["content_type"],
            content_encoding=document["content_encoding"],
            message_id=message_id,
        )


def _unknown(message_id: str) -> ValidationError:
    return ValidationError(
        f"there is no message {message_id!r} in quarantine; it was sent again, dropped, or gave way",
        field="message_id",
    )
