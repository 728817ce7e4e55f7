"""Sealing at the source, and opening for a reader.

A producing process makes a 256-bit data key, seals it to the audit log's public key (HPKE, RFC 9180) and
encrypts each event's document under it (AES-256-GCM). It holds no key that opens the data key again: neither
Redis, the audit worker and PostgreSQL, nor the producer itself after a restart, can read the document.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
import unicodedata
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from techdeck_tasks.audit.canonical import HEAD, MAX_RECORD_BYTES, AuditRecord, decode, encode
from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring import NONCE_BYTES, KeySet, open_with, seal_to

SCHEMA = b"techdeck-audit-1"
MAX_EVENTS_PER_KEY = 1 << 20
"""Random 96-bit nonces stay far from collision below this (NIST SP 800-38D allows 2**32)."""

MAX_KEYS_IN_USE = 128
"""A producer keeps so many data keys, those used last; more than two only where each person has keys."""

MAX_DOCUMENT_BYTES = MAX_RECORD_BYTES // 2
MAX_MESSAGE_CHARS = 2000
"""What is kept of the message of a document that is too large or cannot be written."""

MAX_CLEAR_CHARS = 255
_MAX_INT32 = (1 << 31) - 1
BLIND_INDEX_BYTES = 16
MAX_OPENED_KEYS = 1024


@dataclass(frozen=True, slots=True)
class SealedDataKey:
    """A data key that only the holder of the private key `recipient_id` can open."""

    key_id: uuid.UUID
    tenant: str
    recipient_id: str
    sealed_key: bytes = field(repr=False)

    def resealed(self, opener: Opener, recipients: KeySet) -> SealedDataKey:
        """Return the same data key, sealed to the active of `recipients`.

        Raises:
            As `Opener.data_key`.
        """
        return _seal_key(opener.data_key(self), self.key_id, self.tenant, recipients)


@dataclass(frozen=True, slots=True)
class SealedEvent:
    """A record in its canonical bytes, and the sealed data key a reader needs to open its document.

    Attributes:
        encoded: the canonical bytes.
    """

    encoded: bytes = field(repr=False)
    data_key: SealedDataKey

    @classmethod
    def of(cls, record: AuditRecord, data_key: SealedDataKey) -> Self:
        """Return the sealed event of `record`."""
        return cls(encode(record), data_key)

    @property
    def record(self) -> AuditRecord:
        """The record, decoded at each call."""
        return decode(self.encoded)

    @property
    def content(self) -> bytes:
        """The canonical bytes behind their head."""
        return self.encoded[len(HEAD) :]

    @property
    def content_digest(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes."""
        return hashlib.sha256(self.encoded).digest()


class Sealer:
    """Turns events into sealed records. One a process; safe for threads, and anew in a forked child.

    Args:
        recipients: public keys of the audit log's readers; the active one is sealed to.
        blind_index_keys: HMAC keys of the blind indexes.
        tenant: bound into every key and document; 1 to 64 characters.
        events_per_key: how many documents one data key seals.
        keys_per_subject: whether each person's documents get keys of their own, to be erased alone.
    """

    def __init__(
        self,
        recipients: KeySet,
        blind_index_keys: KeySet,
        tenant: str,
        events_per_key: int = MAX_EVENTS_PER_KEY,
        *,
        keys_per_subject: bool = False,
    ) -> None:
        self._recipients = recipients
        self._blind_index_keys = blind_index_keys
        self._tenant = tenant
        self._events_per_key = events_per_key
        self._keys_per_subject = keys_per_subject
        self._begin()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _part_from_parent(this()))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._producer_id = uuid.uuid4()
        self._producer_seq = 0
        self._keys: OrderedDict[tuple[date, bytes | None], _DataKey] = OrderedDict()

    def seal(self, event: AuditEvent) -> SealedEvent:
        """Seal `event`. Each call takes the next sequence number: what is sealed must be handed on."""
        # Whatever may fail comes before the number is taken: a gap would read as a lost event.
        document = _encode_document(event.document, _persons(event))
        clear: dict[str, Any] = {
            "event_type": event.event_type.value,
            "severity": _clear(event.severity),
            "service": _clear(event.service),
            "operation": _clear(event.operation),
            "retention_days": min(event.retention_days, _MAX_INT32),
            "hipaa_related": event.hipaa_related,
            "hipaa_notify": event.hipaa_notify,
            "outcome": _clear_or_none(event.outcome),
            "error_id": _clear_or_none(event.error_id),
            "error_code": _clear_or_none(event.error_code),
            "task_name": _clear_or_none(event.task_name),
            "task_id": _clear_or_none(event.task_id),
            "attempt": None if event.attempt is None else min(event.attempt, _MAX_INT32),
            "pipeline_id": _clear_or_none(event.pipeline_id),
            "stage": _clear_or_none(event.stage),
            "user_index": self.blind_index("user", event.user_id),
            "subject_index": self.blind_index("subject", event.subject_id),
        }
        with self._lock:
            key = self._key_for(event.occurred_at.date(), clear["subject_index"])
            key.uses += 1
            self._producer_seq += 1
            producer_id, sequence = self._producer_id, self._producer_seq
        data_key, aead = key.sealed, key.aead
        nonce = os.urandom(NONCE_BYTES)
        aad = document_aad(self._tenant, event.event_id, data_key.key_id)
        record = AuditRecord(
            event_id=event.event_id,
            tenant=self._tenant,
            producer_id=producer_id,
            producer_seq=sequence,
            key_id=data_key.key_id,
            sealed_document=nonce + aead.encrypt(nonce, document, aad),
            **clear,
        )
        return SealedEvent.of(record, data_key)

    def blind_index(self, what: str, value: str | None) -> bytes | None:
        """Return the keyed fingerprint under which `value` is searched; None for None."""
        if value is None:
            return None
        return blind_index(self._blind_index_keys.active_key, self._tenant, what, value)

    def _key_for(self, day: date, subject_index: bytes | None) -> _DataKey:
        # A key seals one day's documents: so that a period can be erased and nothing beside it.
        of = (day, subject_index if self._keys_per_subject else None)
        held = self._keys.get(of)
        if held is None or held.uses >= self._events_per_key:
            key = os.urandom(32)
            sealed = _seal_key(key, uuid.uuid4(), self._tenant, self._recipients)
            held = self._keys[of] = _DataKey(sealed, AESGCM(key))
        self._keys.move_to_end(of)
        if len(self._keys) > MAX_KEYS_IN_USE:
            self._keys.popitem(last=False)
        return held


@dataclass(slots=True)
class _DataKey:
    """A data key in use, and how many documents it has sealed."""

    sealed: SealedDataKey
    aead: AESGCM
    uses: int = 0


def _seal_key(key: bytes, key_id: uuid.UUID, tenant: str, recipients: KeySet) -> SealedDataKey:
    info = _key_info(tenant, key_id, recipients.active)
    return SealedDataKey(key_id, tenant, recipients.active, seal_to(recipients.active_key, key, info))


def _part_from_parent(sealer: Sealer | None) -> None:
    # A child that went on under its parent's producer id would use its sequence numbers twice.
    if sealer is not None:
        sealer._begin()  # noqa: SLF001 - a part of the class


def blind_index(key: bytes, tenant: str, what: str, value: str) -> bytes:
    """Return the fingerprint of `value` under one key of the blind indexes."""
    spelled = one_spelling(value).encode("utf-8", "surrogatepass")
    text = b"\0".join((tenant.encode(), what.encode(), spelled))
    return hmac.digest(key, text, "sha256")[:BLIND_INDEX_BYTES]


def one_spelling(person: str) -> str:
    """Return a person's id as it is compared: composed (NFC), as one name may be typed in two ways.

    Letters keep their case: whether it matters is for the application that gives the ids to say.
    """
    return unicodedata.normalize("NFC", person)


class Opener:
    """Opens documents for a reader who holds the private key."""

    def __init__(self, private_keys: KeySet) -> None:
        self._private_keys = private_keys
        # Unsealing costs a hundred times what opening does, and the rows of a page share few keys.
        self._unseal = lru_cache(maxsize=MAX_OPENED_KEYS)(self._unseal_key)

    def open(self, record: AuditRecord, data_key: SealedDataKey) -> dict[str, Any]:
        """Return the document of `record`.

        Raises:
            EncryptionError: the private key is not held, or the record or data key was changed.
        """
        try:
            aead = self._unseal(data_key)
            nonce, ciphertext = record.sealed_document[:NONCE_BYTES], record.sealed_document[NONCE_BYTES:]
            aad = document_aad(record.tenant, record.event_id, record.key_id)
            document: dict[str, Any] = json.loads(aead.decrypt(nonce, ciphertext, aad))
        except (InvalidTag, ValueError):
            raise EncryptionError(
                f"audit event {record.event_id} does not open under data key {data_key.key_id}: "
                "it was changed, or belongs to another key; run 'techdeck audit verify'",
                encryption_type="AES-256-GCM",
            ) from None
        return document

    def _unseal_key(self, data_key: SealedDataKey) -> AESGCM:
        return AESGCM(self.data_key(data_key))

    def data_key(self, sealed: SealedDataKey) -> bytes:
        """Return the 256-bit data key itself.

        Raises:
            EncryptionError: its recipient's private key is not held.
            InvalidTag: it was changed, or belongs to another tenant, id or recipient.
        """
        private = self._private_keys.key(sealed.recipient_id)
        info = _key_info(sealed.tenant, sealed.key_id, sealed.recipient_id)
        return open_with(private, sealed.sealed_key, info)


def _clear(text: str) -> str:
    """Return `text` as PostgreSQL and UTF-8 can hold it: no NUL, no lone surrogate, bounded."""
    kept = text[:MAX_CLEAR_CHARS].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return kept.encode("utf-8", "replace").decode()


def _clear_or_none(text: str | None) -> str | None:
    return None if text is None else _clear(text)


def document_aad(tenant: str, event_id: uuid.UUID, key_id: uuid.UUID) -> bytes:
    """Return what a document is bound to: it opens in its own row, tenant and key only."""
    name = tenant.encode()
    return b"".join((SCHEMA, bytes([len(name)]), name, event_id.bytes, key_id.bytes))


def _key_info(tenant: str, key_id: uuid.UUID, recipient_id: str) -> bytes:
    name = tenant.encode()
    return b"".join((SCHEMA, b"/key", bytes([len(name)]), name, key_id.bytes, recipient_id.encode()))


def _persons(event: AuditEvent) -> dict[str, str]:
    """Return who acted and whom the data is about: sealed, for a log that cannot name them proves nothing."""
    persons = {"user_id": event.user_id, "subject_id": event.subject_id}
    return {name: value[:MAX_MESSAGE_CHARS] for name, value in persons.items() if value is not None}


def _encode_document(document: Mapping[str, Any], persons: Mapping[str, str]) -> bytes:
    """Return the document as JSON. What is too large or no JSON is reduced: an event is never lost for it."""
    try:
        # ASCII escapes keep lone surrogates, which UTF-8 cannot carry, intact.
        data = json.dumps({**document, **persons}, separators=(",", ":"), default=str).encode("ascii")
    except Exception as error:  # noqa: BLE001 - a foreign value's __str__ may raise anything
        return _reduced(document, persons, {"unwritable": type(error).__name__})
    if len(data) <= MAX_DOCUMENT_BYTES:
        return data
    digest = hashlib.sha256(data).hexdigest()
    return _reduced(document, persons, {"truncated": True, "size_bytes": len(data), "sha256": digest})


def _reduced(document: Mapping[str, Any], persons: Mapping[str, str], why: dict[str, Any]) -> bytes:
    message = document.get("message")
    kept = message[:MAX_MESSAGE_CHARS] if isinstance(message, str) else None
    return json.dumps({**why, "message": kept, **persons}).encode("ascii")
