"""The hash chain of each writer: what makes an edit, a gap or another order show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from techdeck_tasks.audit.canonical import microseconds

_ROW = b"techdeck-audit-row-1"
_GENESIS = b"techdeck-audit-genesis-1"


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
        hashed = hash_row(
            self.row_hash, self.writer_id.encode(), self.seq + 1, microseconds(recorded_at), content_digest
        )
        return Head(self.writer_id, self.seq + 1, hashed)


def hash_row(prev_hash: bytes, writer_id: bytes, seq: int, recorded_us: int, content_digest: bytes) -> bytes:
    """Return the hash of a writer's row `seq`; `recorded_us` counts from 1970 UTC."""
    # Wider than 64 bits: what somebody wrote into a row must not stop its verification.
    numbers = seq.to_bytes(16, signed=True) + recorded_us.to_bytes(16, signed=True)
    parts = (_ROW, prev_hash, len(writer_id).to_bytes(2), writer_id, numbers, content_digest)
    return hashlib.sha256(b"".join(parts)).digest()
