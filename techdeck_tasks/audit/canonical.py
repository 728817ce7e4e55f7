"""The canonical bytes of an audit record: what the stream carries and what the chain hashes.

Never JSON or SQL text, which have many spellings for one value. A record is

    magic "TDAR" | version u8 | number of columns u8 | column*
    column = ordinal u8 | type u8 | length u32 | bytes

all integers big-endian; columns in rising order of their ordinal; NULL omitted, so that a nullable column can
be added later without changing the bytes of older records. Text is UTF-8 as it is. Decoding is strict: a
record has one spelling, and what PostgreSQL could not hold is refused.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from techdeck_tasks.audit.event import time_of
from techdeck_tasks.errors import ValidationError

MAGIC = b"TDAR"
VERSION = 1
MAX_RECORD_BYTES = 1 << 20
MAX_TEXT_BYTES = 1024
MAX_INDEX_BYTES = 64
"""An index of PostgreSQL refuses values beyond a third of a page."""

_HEAD = struct.Struct(">4sBB")
_COLUMN = struct.Struct(">HI")
_INT64 = struct.Struct(">q")
_INT32 = struct.Struct(">i")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """A sealed event: everything about it that may be stored.

    Attributes:
        producer_id: the process that made it; `producer_seq` counts its events from 1 without gaps.
        key_id: the data key that sealed `sealed_document` (nonce, ciphertext and tag).
        user_index: blind index of who acted, 16 bytes; `subject_index` of whom the data is about.

    The other attributes are those of `AuditEvent`.
    """

    event_id: uuid.UUID
    tenant: str
    producer_id: uuid.UUID
    producer_seq: int
    event_type: str
    severity: str
    service: str
    operation: str
    retention_days: int
    hipaa_related: bool
    hipaa_notify: bool
    key_id: uuid.UUID
    sealed_document: bytes
    outcome: str | None = None
    error_id: str | None = None
    error_code: str | None = None
    task_name: str | None = None
    task_id: str | None = None
    attempt: int | None = None
    pipeline_id: str | None = None
    stage: str | None = None
    user_index: bytes | None = None
    subject_index: bytes | None = None

    @property
    def occurred_at(self) -> datetime:
        """When it happened, aware UTC, to the ms; inside `event_id`."""
        return time_of(self.event_id)


class _Type(NamedTuple):
    tag: int
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def _unpack_bool(raw: bytes) -> bool:
    if raw not in (b"\0", b"\1"):
        raise ValueError(f"{raw!r} is no truth value")
    return raw == b"\1"


def _unpack_text(raw: bytes) -> str:
    if len(raw) > MAX_TEXT_BYTES or b"\0" in raw:
        raise ValueError("too long, or with a NUL")
    return raw.decode("utf-8")


def _unpack_index(raw: bytes) -> bytes:
    if len(raw) > MAX_INDEX_BYTES:
        raise ValueError("too long")
    return raw


# Each packed value is also what PostgreSQL's binary format sends for the column: see `encode_packed`.
_TEXT = _Type(1, str.encode, _unpack_text)
_BYTES = _Type(2, bytes, bytes)
_INDEX = _Type(2, bytes, _unpack_index)
_INT = _Type(3, _INT64.pack, lambda raw: _INT64.unpack(raw)[0])
_SHORT = _Type(4, _INT32.pack, lambda raw: _INT32.unpack(raw)[0])
_BOOL = _Type(5, lambda value: b"\1" if value else b"\0", _unpack_bool)
_UUID = _Type(6, lambda value: value.bytes, lambda raw: uuid.UUID(bytes=raw))

# An ordinal belongs to its column for ever: older rows are hashed by it. New columns get the next number.
_COLUMNS: tuple[tuple[int, str, _Type], ...] = (
    (1, "event_id", _UUID),
    (2, "tenant", _TEXT),
    (3, "producer_id", _UUID),
    (4, "producer_seq", _INT),
    (5, "event_type", _TEXT),
    (6, "severity", _TEXT),
    (7, "service", _TEXT),
    (8, "operation", _TEXT),
    (9, "retention_days", _SHORT),
    (10, "hipaa_related", _BOOL),
    (11, "hipaa_notify", _BOOL),
    (12, "key_id", _UUID),
    (13, "sealed_document", _BYTES),
    (14, "outcome", _TEXT),
    (15, "error_id", _TEXT),
    (16, "error_code", _TEXT),
    (17, "task_name", _TEXT),
    (18, "task_id", _TEXT),
    (19, "attempt", _SHORT),
    (20, "pipeline_id", _TEXT),
    (21, "stage", _TEXT),
    (22, "user_index", _INDEX),
    (23, "subject_index", _INDEX),
)
# Ordinal and type of a column, as one number.
_CODES = tuple(ordinal << 8 | kind.tag for ordinal, _, kind in _COLUMNS)
_BY_CODE = {code: (name, kind.unpack) for code, (_, name, kind) in zip(_CODES, _COLUMNS, strict=True)}
COLUMN_NAMES = tuple(name for _, name, _ in _COLUMNS)
assert set(COLUMN_NAMES) == {field.name for field in fields(AuditRecord)}
_PACKERS = tuple(kind.pack for _, _, kind in _COLUMNS)
column_values: Callable[[AuditRecord], tuple[Any, ...]] = attrgetter(*COLUMN_NAMES)
"""Returns a record's values in the order of `COLUMN_NAMES`."""


class _Prefixes(dict[int, bytes]):
    """The six bytes before a column's value, by its length; ready made where it is short, as most are."""

    def __init__(self, code: int) -> None:
        super().__init__((length, _COLUMN.pack(code, length)) for length in range(256))
        self._code = code

    def __missing__(self, length: int) -> bytes:
        return _COLUMN.pack(self._code, length)


_PREFIXES = tuple(map(_Prefixes, _CODES))
_HEADS = tuple(_HEAD.pack(MAGIC, VERSION, count) for count in range(len(_COLUMNS) + 1))


def encode(record: AuditRecord) -> bytes:
    """Return the canonical bytes of `record`."""
    packed = [
        None if value is None else pack(value)
        for pack, value in zip(_PACKERS, column_values(record), strict=True)
    ]
    return encode_packed(packed)


def encode_packed(columns: Iterable[bytes | None]) -> bytes:
    """Return the canonical bytes of a record whose columns are packed already, None for NULL.

    Args:
        columns: one for each of `COLUMN_NAMES`, in that order, as PostgreSQL's binary format has them.
    """
    parts = [b""]
    add = parts.append
    for prefixes, raw in zip(_PREFIXES, columns, strict=True):
        if raw is not None:
            add(prefixes[len(raw)])
            add(raw)
    parts[0] = _HEADS[len(parts) // 2]
    return b"".join(parts)


def decode(data: bytes) -> AuditRecord:
    """Return the record of canonical bytes.

    Raises:
        ValidationError: the bytes are not the one canonical spelling of a record.
    """
    try:
        return _decode(data)
    except (struct.error, ValueError, TypeError, ValidationError) as error:
        raise ValidationError(
            f"audit record of {len(data)} bytes is not canonical: {type(error).__name__}",
            field="audit_record",
            validation_rule="canonical encoding, version 1",
        ) from None


def _decode(data: bytes) -> AuditRecord:
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError("too long")
    magic, version, count = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ValueError("unknown format")
    values: dict[str, Any] = {}
    offset, last = _HEAD.size, 0
    for _ in range(count):
        code, length = _COLUMN.unpack_from(data, offset)
        start, offset = offset + _COLUMN.size, offset + _COLUMN.size + length
        known = _BY_CODE.get(code)
        if known is None or code <= last or offset > len(data):
            raise ValueError("unknown, repeated or misplaced column")
        name, unpack = known
        values[name] = unpack(data[start:offset])
        last = code
    if offset != len(data):
        raise ValueError("trailing bytes")
    record = AuditRecord(**values)
    time_of(record.event_id)
    if record.producer_seq < 1:
        raise ValueError("sequence numbers count from 1")
    return record


def microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970 UTC to an aware `moment`, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
