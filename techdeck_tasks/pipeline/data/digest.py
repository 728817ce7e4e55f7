"""SHA-256 of files, of those that are there and of those on their way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class Digesting:
    """A binary stream whose bytes are counted and digested as they are read or written, once and in order."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._stream.read(size)
        self._take(data)
        return data

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._take(data)
        return self._stream.write(data)

    def hexdigest(self) -> str:
        """Return the SHA-256 of what has passed as hex digits."""
        return self._digest.hexdigest()

    def _take(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
