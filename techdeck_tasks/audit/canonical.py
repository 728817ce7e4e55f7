"""The canonical bytes of an audit record: what the stream carries, the chain hashes and PostgreSQL takes.

Never JSON or SQL text, which have many spellings for one value. A record is

    magic "TDAR" | version u8 | number of columns u8 | column*
    column = length i32, -1 for NULL | bytes

all integers big-endian; columns in the order of `COLUMN_NAMES`. Behind the head that is how the binary COPY
of PostgreSQL takes and sends the columns: neither who writes a row nor who verifies it spells it anew. Text
is UTF-8 as it is. Decoding is strict: a record has one spelling, and what PostgreSQL could not hold is
refused.

A column that is added later comes last, and a record in which it is NULL is spelled without it: so the bytes
of older records stay what they are.
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
VERSION = 2
MAX_RECORD_BYTES = 1 << 20
MAX_TEXT_BYTES = 1024
UUID_BYTES = 16
MAX_INDEX_BYTES = 64
"""An index of PostgreSQL refuses values beyond a third of a page."""

_LENGTH = struct.Struct(">i")
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
        shortest: bytes of a packed value, at least; `longest` at most.
        check: refuses what has the right length and is wrong none the less; texts are checked together.
    """

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


# Each packs as PostgreSQL's binary format does.
_TEXT = _Type(str.encode, 0, MAX_TEXT_BYTES, None, bytes.decode)
_BYTES = _Type(bytes, 0, MAX_RECORD_BYTES, None, bytes)
_INDEX = _Type(bytes, 0, MAX_INDEX_BYTES, None, bytes)
_SEQUENCE = _Type(_INT64.pack, 8, 8, _check_sequence, lambda raw: _INT64.unpack(raw)[0])
_SHORT = _Type(_INT32.pack, 4, 4, None, lambda raw: _INT32.unpack(raw)[0])
_BOOL = _Type(lambda value: b"\1" if value else b"\0", 1, 1, _check_bool, b"\1".__eq__)
_UUID = _Type(_pack_uuid, UUID_BYTES, UUID_BYTES, None, _unpack_uuid)
_EVENT_ID = _Type(_pack_uuid, UUID_BYTES, UUID_BYTES, check_event_id, _unpack_uuid)

# Older rows are hashed in this order: it stays, and new columns come last.
_COLUMNS: tuple[tuple[str, _Type], ...] = (
    ("event_id", _EVENT_ID),
    ("tenant", _TEXT),
    ("producer_id", _UUID),
    ("producer_seq", _SEQUENCE),
    ("event_type", _TEXT),
    ("severity", _TEXT),
    ("service", _TEXT),
    ("operation", _TEXT),
    ("retention_days", _SHORT),
    ("hipaa_related", _BOOL),
    ("hipaa_notify", _BOOL),
    ("key_id", _UUID),
    ("sealed_document", _BYTES),
    ("outcome", _TEXT),
    ("error_id", _TEXT),
    ("error_code", _TEXT),
    ("task_name", _TEXT),
    ("task_id", _TEXT),
    ("attempt", _SHORT),
    ("pipeline_id", _TEXT),
    ("stage", _TEXT),
    ("user_index", _INDEX),
    ("subject_index", _INDEX),
)
HEAD = MAGIC + bytes((VERSION, len(_COLUMNS)))
"""How every record begins; what stands behind it is called its content."""

_NULL = _LENGTH.pack(-1)
_BOUNDS = tuple((kind.shortest, kind.longest) for _, kind in _COLUMNS)
_CHECKS = tuple((place, kind.check) for place, (_, kind) in enumerate(_COLUMNS) if kind.check is not None)
_TEXTS: Callable[[Any], tuple[bytes | None, ...]] = itemgetter(
    *(place for place, (_, kind) in enumerate(_COLUMNS) if kind is _TEXT)
)
COLUMN_NAMES = tuple(name for name, _ in _COLUMNS)
assert set(COLUMN_NAMES) == {field.name for field in fields(AuditRecord)}
_MANDATORY = slice(0, sum(field.default is MISSING for field in fields(AuditRecord)))
assert all(field.default is MISSING for field in fields(AuditRecord)[_MANDATORY])
assert all(place < _MANDATORY.stop for place, _ in _CHECKS)
_PACKERS = tuple(kind.pack for _, kind in _COLUMNS)
_UNPACKERS = tuple((name, kind.unpack) for name, kind in _COLUMNS)
_values: Callable[[AuditRecord], tuple[Any, ...]] = attrgetter(*COLUMN_NAMES)

Columns = tuple[bytes | None, ...]
"""A record's values in the order of `COLUMN_NAMES`, packed; None is NULL."""


def encode(record: AuditRecord) -> bytes:
    """Return the canonical bytes of `record`."""
    parts = [HEAD]
    for pack, value in zip(_PACKERS, _values(record), strict=True):
        if value is None:
            parts.append(_NULL)
        else:
            packed = pack(value)
            parts += (_LENGTH.pack(len(packed)), packed)
    return b"".join(parts)


def event_id_of(content: bytes | memoryview) -> bytes:
    """Return the 16 bytes of the event's id, the first column of a record's content."""
    return bytes(content[_LENGTH.size : _LENGTH.size + UUID_BYTES])


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
            validation_rule=f"canonical encoding, version {VERSION}",
        ) from None


def _split(data: bytes) -> Columns:
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError("too long")
    if not data.startswith(HEAD):
        raise ValueError("unknown format")
    columns: list[bytes | None] = []
    add, unpack, end = columns.append, _LENGTH.unpack_from, len(HEAD)
    for shortest, longest in _BOUNDS:
        (length,) = unpack(data, end)
        start = end + _LENGTH.size
        if length == -1:
            add(None)
            end = start
            continue
        if not shortest <= length <= longest:
            raise ValueError("a column that is too short or too long")
        end = start + length
        add(data[start:end])
    if end != len(data):
        raise ValueError("it ends too early or too late")
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
