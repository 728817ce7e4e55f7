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
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime, timedelta
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from techdeck_tasks.audit.event import check_event_id, time_of
from techdeck_tasks.errors import ValidationError

MAGIC = b"TDAR"
VERSION = 1
MAX_RECORD_BYTES = 1 << 20
MAX_TEXT_BYTES = 1024
UUID_BYTES = 16
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
    """How values of a column are packed, and what `unpack` and PostgreSQL can take.

    Attributes:
        tag: names it in the record.
        shortest: bytes of a packed value, at least; `longest` at most.
        check: refuses what has the right length and is wrong none the less; texts are checked together.
    """

    tag: int
    pack: Callable[[Any], bytes]
    shortest: int
    longest: int
    check: Callable[[bytes], object] | None
    unpack: Callable[[bytes], Any]


def _check_bool(raw: bytes) -> None:
    if raw not in (b"\0", b"\1"):
        raise ValueError(f"{raw!r} is no truth value")


def _check_sequence(raw: bytes) -> None:
    if _INT64.unpack(raw)[0] < 1:
        raise ValueError("sequence numbers count from 1")


def _check_texts(texts: Iterable[bytes]) -> None:
    # A separator of one byte: no two broken texts make a sound one.
    joined = b"\n".join(texts)
    joined.decode()
    if b"\0" in joined:
        raise ValueError("text with a NUL")


def _unpack_uuid(raw: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=raw)


def _pack_uuid(value: uuid.UUID) -> bytes:
    return value.bytes


# Each packed value is also what PostgreSQL's binary format sends for the column: see `encode_packed`.
_TEXT = _Type(1, str.encode, 0, MAX_TEXT_BYTES, None, bytes.decode)
_BYTES = _Type(2, bytes, 0, MAX_RECORD_BYTES, None, bytes)
_INDEX = _Type(2, bytes, 0, MAX_INDEX_BYTES, None, bytes)
_SEQUENCE = _Type(3, _INT64.pack, 8, 8, _check_sequence, lambda raw: _INT64.unpack(raw)[0])
_SHORT = _Type(4, _INT32.pack, 4, 4, None, lambda raw: _INT32.unpack(raw)[0])
_BOOL = _Type(5, lambda value: b"\1" if value else b"\0", 1, 1, _check_bool, b"\1".__eq__)
_UUID = _Type(6, _pack_uuid, UUID_BYTES, UUID_BYTES, None, _unpack_uuid)
_EVENT_ID = _Type(6, _pack_uuid, UUID_BYTES, UUID_BYTES, check_event_id, _unpack_uuid)

# An ordinal belongs to its column for ever: older rows are hashed by it. New columns get the next number.
_COLUMNS: tuple[tuple[int, str, _Type], ...] = (
    (1, "event_id", _EVENT_ID),
    (2, "tenant", _TEXT),
    (3, "producer_id", _UUID),
    (4, "producer_seq", _SEQUENCE),
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
_EXPECTED = tuple(
    (code, kind.shortest, kind.longest) for code, (_, _, kind) in zip(_CODES, _COLUMNS, strict=True)
)
_NO_COLUMN = bytes(_COLUMN.size)
_CHECKS = tuple((place, kind.check) for place, (*_, kind) in enumerate(_COLUMNS) if kind.check is not None)
_TEXTS: Callable[[Any], tuple[bytes | None, ...]] = itemgetter(
    *(place for place, (*_, kind) in enumerate(_COLUMNS) if kind is _TEXT)
)
COLUMN_NAMES = tuple(name for _, name, _ in _COLUMNS)
assert set(COLUMN_NAMES) == {field.name for field in fields(AuditRecord)}
_MANDATORY = slice(0, sum(field.default is MISSING for field in fields(AuditRecord)))
assert all(field.default is MISSING for field in fields(AuditRecord)[_MANDATORY])
assert all(place < _MANDATORY.stop for place, _ in _CHECKS)
_PACKERS = tuple(kind.pack for _, _, kind in _COLUMNS)
_UNPACKERS = tuple((name, kind.unpack) for _, name, kind in _COLUMNS)
_values: Callable[[AuditRecord], tuple[Any, ...]] = attrgetter(*COLUMN_NAMES)

Columns = tuple[bytes | None, ...]
"""A record's values in the order of `COLUMN_NAMES`, as PostgreSQL's binary format has them; None is NULL."""


_READY_MADE = 256
# The six bytes before a column's value, by its length: ready made where it is short, as most are.
_PREFIXES = tuple(tuple(_COLUMN.pack(code, length) for length in range(_READY_MADE)) for code in _CODES)
_HEADS = tuple(_HEAD.pack(MAGIC, VERSION, count) for count in range(len(_COLUMNS) + 1))


def encode(record: AuditRecord) -> bytes:
    """Return the canonical bytes of `record`."""
    return encode_packed(pack_columns(record))


def pack_columns(record: AuditRecord) -> Columns:
    """Return the columns of `record`, packed."""
    return tuple(
        None if value is None else pack(value) for pack, value in zip(_PACKERS, _values(record), strict=True)
    )


def encode_packed(columns: Iterable[bytes | None]) -> bytes:
    """Return the canonical bytes of a record whose columns are packed already, None for NULL.

    Args:
        columns: one for each of `COLUMN_NAMES`, in that order, as PostgreSQL's binary format has them.
    """
    parts = [b""]
    add = parts.append
    for code, prefixes, raw in zip(_CODES, _PREFIXES, columns, strict=True):
        if raw is not None:
            length = len(raw)
            add(prefixes[length] if length < _READY_MADE else _COLUMN.pack(code, length))
            add(raw)
    parts[0] = _HEADS[len(parts) // 2]
    return b"".join(parts)


def decode(data: bytes) -> AuditRecord:
    """Return the record of canonical bytes.

    Raises:
        ValidationError: the bytes are not the one canonical spelling of a record.
    """
    columns = zip(_UNPACKERS, split(data), strict=True)
    values: dict[str, Any] = {name: unpack(raw) for (name, unpack), raw in columns if raw is not None}
    return AuditRecord(**values)


def split(data: bytes) -> Columns:
    """Return the packed columns of canonical bytes, every one checked, none unpacked.

    Raises:
        ValidationError: the bytes are not the one canonical spelling of a record.
    """
    try:
        return _split(data)
    except (struct.error, LookupError, ValueError, ValidationError) as error:
        raise ValidationError(
            f"audit record of {len(data)} bytes is not canonical: {type(error).__name__}",
            field="audit_record",
            validation_rule="canonical encoding, version 1",
        ) from None


def _split(data: bytes) -> Columns:
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError("too long")
    magic, version, count = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise ValueError("unknown format")
    columns: list[bytes | None] = []
    add, unpack, end, prefix = columns.append, _COLUMN.unpack_from, _HEAD.size, _COLUMN.size
    padded = data + _NO_COLUMN
    for expected, shortest, longest in _EXPECTED:
        code, length = unpack(padded, end)
        if code != expected:
            add(None)
            continue
        if not shortest <= length <= longest:
            raise ValueError("a column that is too short or too long")
        start = end + prefix
        end = start + length
        add(data[start:end])
    # What is unknown, repeated or misplaced was passed over: the end was not reached.
    if end != len(data) or count != len(columns) - columns.count(None):
        raise ValueError("a column that is unknown, repeated or misplaced, or another number of them")
    if None in columns[_MANDATORY]:
        raise ValueError("a mandatory column is missing")
    _check_texts(filter(None, _TEXTS(columns)))
    for place, check in _CHECKS:
        raw = columns[place]
        assert raw is not None, "such columns are mandatory"
        check(raw)
    return tuple(columns)


def microseconds(moment: datetime) -> int:
    """Return the microseconds from 1970 UTC to an aware `moment`, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
