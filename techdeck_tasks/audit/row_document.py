"""A row of the log as one JSON object, sealed as it is in the database: what sink and archive hold."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import uuid
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Row

from techdeck_tasks.audit.canonical import COLUMN_NAMES, AuditRecord, encode, microseconds
from techdeck_tasks.audit.proof.chain import Head, hash_row
from techdeck_tasks.errors import ValidationError

_UUID_COLUMNS = ("event_id", "producer_id", "key_id")
_BYTES_COLUMNS = ("sealed_document", "user_index", "subject_index")
_COLUMNS = {field.name for field in fields(AuditRecord)}


class DiffersError(ValueError):
    """A file does not hold what was signed; the text says what of it."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row that fits its own hash.

    Attributes:
        record: its content.
        recorded_at: aware UTC.
        prev_hash: of the row before it in its chain.
        place: its writer, number and hash.
    """

    record: AuditRecord
    recorded_at: datetime
    prev_hash: bytes
    place: Head


MALFORMED: tuple[type[Exception], ...] = (
    ValidationError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What reading a line raises that somebody else has written: any JSON at all, as deep as it likes."""


def document_of(row: Row[Any]) -> dict[str, Any]:
    """Return a row of `audit_event` as JSON-safe data."""
    record = {name: _plain(value) for name in COLUMN_NAMES if (value := getattr(row, name)) is not None}
    return {
        "kind": "row",
        "writer_id": row.writer_id,
        "writer_seq": row.writer_seq,
        "recorded_at": row.recorded_at.isoformat(),
        "prev_hash": to_base64(row.prev_hash),
        "row_hash": to_base64(row.row_hash),
        "record": record,
    }


def read_row(document: dict[str, Any]) -> StoredRow:
    """Return the row of `document`, after its digest and hash were computed anew.

    Raises:
        DiffersError: it does not fit its hash.
        One of `MALFORMED`: it is no row.
    """
    values = {name: value for name, value in document["record"].items() if name in _COLUMNS}
    for name in _UUID_COLUMNS:
        values[name] = uuid.UUID(values[name])
    for name in _BYTES_COLUMNS:
        if name in values:
            values[name] = from_base64(values[name])
    record = AuditRecord(**values)
    digest = hashlib.sha256(encode(record)).digest()
    writer_id, seq = str(document["writer_id"]), int(document["writer_seq"])
    recorded_at, prev_hash = (
        datetime.fromisoformat(document["recorded_at"]),
        from_base64(document["prev_hash"]),
    )
    row_hash = hash_row(prev_hash, writer_id.encode(), seq, microseconds(recorded_at), digest)
    if row_hash != from_base64(document["row_hash"]):
        raise DiffersError(f"has row {seq} of {writer_id} edited")
    return StoredRow(record, recorded_at, prev_hash, Head(writer_id, seq, row_hash))


def to_line(document: dict[str, Any]) -> bytes:
    """Return `document` as one line of a file."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def to_base64(value: bytes) -> str:
    """Return bytes as JSON holds them."""
    return base64.b64encode(value).decode()


def from_base64(value: str) -> bytes:
    """Return the bytes; raises ValueError for what is no base64."""
    return base64.b64decode(value, validate=True)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return to_base64(value)
    return str(value) if isinstance(value, uuid.UUID) else value
