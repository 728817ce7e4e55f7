"""The way from producers to the audit worker: a Redis Stream with one consumer group, at least once.

Not Celery messages: between BRPOP and its bookkeeping a Celery message on Redis can vanish. An entry is
deleted only after PostgreSQL has committed its row.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import redis

from techdeck_tasks.audit.canonical import COLUMN_NAMES, split
from techdeck_tasks.audit.sealing import SealedDataKey, SealedEvent
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import MAX_KEY_ID_BYTES
from techdeck_tasks.storage.redis_client import Script

STREAM = "td:audit"
GROUP = "writers"
QUARANTINE = "{td:audit}:quarantine"
"""In the stream's hash slot: an entry moves from one to the other in one step, in a cluster too."""

QUARANTINED = "{td:audit}:quarantined"
"""Counts the entries that were ever quarantined."""

MAX_QUARANTINED = 10_000
"""So many entries are kept in quarantine, about, the newest."""

DEAD_AFTER_MS = 60_000
"""A consumer that was silent for so long is dead: a living one reads twice a second."""

_FORGET_CONSUMERS = Script.load("techdeck_tasks.audit", "lua/forget_consumers.lua")

MAX_SEALED_KEY_BYTES = 4096

_PAYLOAD = b"e"
_KEY_ID, _TENANT = map(COLUMN_NAMES.index, ("key_id", "tenant"))
_LENGTHS = struct.Struct(">III")


def pack(event: SealedEvent) -> bytes:
    """Return a sealed event as stream and spool carry it.

    ``lengths of the three parts, u32 each | record | recipient id | sealed data key``. Every payload carries
    its data key, so that none depends on another's arrival.
    """
    parts = (event.encoded, event.data_key.recipient_id.encode(), event.data_key.sealed_key)
    return _LENGTHS.pack(*map(len, parts)) + b"".join(parts)


def unpack(payload: bytes) -> SealedEvent:
    """Return the sealed event of a payload.

    Raises:
        ValidationError: it is malformed.
    """
    start = _LENGTHS.size
    first, second, third = _LENGTHS.unpack(payload[:start]) if len(payload) >= start else (0, 0, 0)
    middle, end = start + first, start + first + second
    if len(payload) != end + third:
        raise ValidationError("audit payload is malformed", field="payload")
    encoded = payload[start:middle]
    columns = split(encoded)
    key_id, tenant = columns[_KEY_ID], columns[_TENANT]
    assert key_id is not None, "a mandatory column"
    assert tenant is not None, "as above"
    return SealedEvent(encoded, _data_key(key_id, tenant, payload[middle:end], payload[end:]))


@lru_cache(256)
def _data_key(key_id: bytes, tenant: bytes, recipient_id: bytes, sealed_key: bytes) -> SealedDataKey:
    # Remembered: thousands of events come with the same one.
    recipient = recipient_id.decode("ascii", "replace")
    if not (recipient.isascii() and recipient.isprintable() and 0 < len(recipient_id) <= MAX_KEY_ID_BYTES):
        raise ValidationError("audit payload names no recipient key", field="recipient_id")
    if not 0 < len(sealed_key) <= MAX_SEALED_KEY_BYTES:
        raise ValidationError("audit payload carries no data key", field="sealed_key")
    return SealedDataKey(uuid.UUID(bytes=key_id), tenant.decode(), recipient, sealed_key)


def send(client: redis.Redis, payloads: Sequence[bytes]) -> None:
    """Add payloads to the stream, in one round trip. Redis errors pass through."""
    # No transaction: what is sent twice is written once, and nobody waits for all of them.
    with client.pipeline(transaction=False) as pipe:
        for payload in payloads:
            pipe.xadd(STREAM, {_PAYLOAD: payload})
        pipe.execute()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A payload as the stream delivered it; `entry_id` acknowledges it."""

    entry_id: bytes
    payload: bytes


class AuditStream:
    """The stream as its consumers see it. Redis errors pass through.

    Args:
        client: its socket timeout must exceed `block_ms` of `read`.
        consumer: this consumer's name in the group; a restart under the same name finds its own leftovers.
    """

    def __init__(self, client: redis.Redis, consumer: str) -> None:
        self._redis = client
        self._consumer = consumer

    def ensure_group(self) -> None:
        """Create the stream and its group where they are missing."""
        try:
            self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read(self, count: int, block_ms: int | None) -> list[Delivery]:
        """Return new entries; wait up to `block_ms` for the first one, not at all for None."""
        return self._read(">", count, block_ms)

    def read_unacknowledged(self, count: int) -> list[Delivery]:
        """Return what this consumer was given before and never acknowledged."""
        return self._read("0", count, None)

    def claim(self, count: int, idle_ms: int) -> list[Delivery]:
        """Take over what other consumers were given at least `idle_ms` ago and never acknowledged."""
        reply: Any = self._redis.xautoclaim(STREAM, GROUP, self._consumer, idle_ms, count=count)
        return _deliveries(reply[1])

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget entries whose rows are committed."""
        if deliveries:
            ids = [delivery.entry_id for delivery in deliveries]
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(STREAM, GROUP, *ids)
                pipe.xdel(STREAM, *ids)
                pipe.execute()

    def quarantine(self, delivery: Delivery, reason: str) -> None:
        """Set an entry aside that can never be written, with the reason, in the step that acknowledges it.

        The newest `MAX_QUARANTINED` are kept; all are counted.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(
                QUARANTINE,
                {_PAYLOAD: delivery.payload, "reason": reason.encode()},
                maxlen=MAX_QUARANTINED,
            )
            pipe.incr(QUARANTINED)
            pipe.xack(STREAM, GROUP, delivery.entry_id)
            pipe.xdel(STREAM, delivery.entry_id)
            pipe.execute()

    def forget_dead_consumers(self, silent_ms: int = DEAD_AFTER_MS) -> int:
        """Delete the consumers that were silent for `silent_ms` and hold nothing; return how many."""
        try:
            return int(_FORGET_CONSUMERS(self._redis, [STREAM], [GROUP, silent_ms]))
        except redis.ResponseError as error:
            if "NOGROUP" in str(error):
                return 0
            raise

    def _read(self, start: str, count: int, block_ms: int | None) -> list[Delivery]:
        reply: Any = self._redis.xreadgroup(
            GROUP, self._consumer, {STREAM: start}, count=count, block=block_ms
        )
        if not reply:
            return []
        entries = reply[0][1] if isinstance(reply, list) else next(iter(reply.values()))
        return _deliveries(entries)


def _deliveries(entries: Any) -> list[Delivery]:
    # An entry that somebody deleted comes without fields and, from Redis 6.2's XAUTOCLAIM, without its id.
    return [Delivery(entry_id, (fields or {}).get(_PAYLOAD, b"")) for entry_id, fields in entries if entry_id]
