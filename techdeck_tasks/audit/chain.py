"""The hash chain of each writer: what makes an edit, a gap or another order show."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import datetime

from techdeck_tasks.audit.canonical import microseconds

_ROW = b"techdeck-audit-row-1"
_GENESIS = b"techdeck-audit-genesis-1"
_NUMBERS = struct.Struct(">Qq")


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a writer's chain: `seq` rows so far, the last one's hash."""

    writer_id: str
    seq: int
    row_hash: bytes

    @classmethod
    def genesis(cls, writer_id: str) -> Head:
        """Return the head of a writer that has written nothing; no two writers begin alike."""
        return cls(writer_id, 0, hashlib.sha256(_GENESIS + writer_id.encode()).digest())

    def next(self, content_digest: bytes, recorded_at: datetime) -> Head:
        """Return the head after one more row, whose hash covers all rows before it."""
        hashed = hashlib.sha256(_ROW)
        hashed.update(self.row_hash)
        writer = self.writer_id.encode()
        hashed.update(len(writer).to_bytes(2, "big") + writer)
        hashed.update(_NUMBERS.pack(self.seq + 1, microseconds(recorded_at)))
        hashed.update(content_digest)
        return Head(self.writer_id, self.seq + 1, hashed.digest())
