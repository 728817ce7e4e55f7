"""A row of `audit_event` as PostgreSQL's binary COPY takes it from the writer and sends it to verification.

    number of columns i16 | columns of its place in the chain | its canonical bytes without their head

The writer's id, which verification knows, comes before the place where a row is written.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from techdeck_tasks.audit.canonical import COLUMN_NAMES

PLACE_COLUMNS = ("occurred_at", "recorded_at", "writer_seq", "content_digest", "prev_hash", "row_hash")
COLUMNS = (*PLACE_COLUMNS, *COLUMN_NAMES)

_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC, from which PostgreSQL counts."""

_LENGTH = struct.Struct(">i")
_INT64 = struct.Struct(">q")
# Each column behind its length.
_PLACE = struct.Struct(">" + 3 * "iq" + 3 * "i32s")
_LENGTHS = (8, 8, 8, 32, 32, 32)
_COUNT_BYTES = 2
_CONTENT = _COUNT_BYTES + _PLACE.size


class Place(NamedTuple):
    """Where a row stands in its chain; times in us from 1970 UTC."""

    occurred_us: int
    recorded_us: int
    seq: int
    content_digest: bytes
    prev_hash: bytes
    row_hash: bytes

    def pack(self) -> bytes:
        """Return the columns of the place."""
        times = (8, self.occurred_us - _EPOCH_US, 8, self.recorded_us - _EPOCH_US)
        hashes = (32, self.content_digest, 32, self.prev_hash, 32, self.row_hash)
        return _PLACE.pack(*times, 8, self.seq, *hashes)


def pack_start(writer_id: str) -> bytes:
    """Return what all rows of a writer begin with: the number of columns, and its id as the first of them."""
    packed = writer_id.encode()
    return (1 + len(COLUMNS)).to_bytes(_COUNT_BYTES) + _LENGTH.pack(len(packed)) + packed


def unpack(row: memoryview) -> tuple[Place, memoryview]:
    """Return the place and the content of a row that PostgreSQL sent."""
    found = _PLACE.unpack_from(row, _COUNT_BYTES) if len(row) >= _CONTENT else ()
    if found[::2] != _LENGTHS:
        return _unpack_forged(row)
    _, occurred, _, recorded, _, seq, _, digest, _, prev_hash, _, row_hash = found
    place = Place(occurred + _EPOCH_US, recorded + _EPOCH_US, seq, digest, prev_hash, row_hash)
    return place, row[_CONTENT:]


def _unpack_forged(row: memoryview) -> tuple[Place, memoryview]:
    """Unpack a row in which a digest or hash is shorter or longer than the writer makes them."""
    values, end = [], _COUNT_BYTES
    for _ in PLACE_COLUMNS:
        (length,) = _LENGTH.unpack_from(row, end)
        start = end + _LENGTH.size
        end = start + length
        values.append(bytes(row[start:end]))
    (occurred,), (recorded,), (seq,) = map(_INT64.unpack, values[:3])
    return Place(occurred + _EPOCH_US, recorded + _EPOCH_US, seq, *values[3:]), row[end:]
