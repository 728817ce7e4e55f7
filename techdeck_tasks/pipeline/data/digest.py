"""SHA-256 of files, of those that are there and of those that are being written."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class FollowingDigest:
    """SHA-256 of a file while it is being written, taken in a thread beside the one that writes."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._digest = hashlib.sha256()
        self._beside = ThreadPoolExecutor(1, "digest")
        self._taken: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._beside.shutdown(cancel_futures=True)
        self._stream.close()

    def follow(self, end: int) -> None:
        """Take in what lies before the offset `end`: it is in the file, and stays as it is."""
        self._taken.append(self._beside.submit(self._take, end))

    def hexdigest(self) -> str:
        """Return the SHA-256 of all before the last `end` as hex digits, once it is done."""
        for taken in self._taken:
            taken.result()
        return self._digest.hexdigest()

    def _take(self, end: int) -> None:
        while (left := end - self._stream.tell()) > 0:
            block = self._stream.read(min(left, _BLOCK_BYTES))
            if not block:
                raise EOFError(f"{self._stream.name} ends before {end}")
            self._digest.update(block)
