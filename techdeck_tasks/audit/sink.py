"""The backup sink: a folder outside the database that holds the log a second time, in segments.

A segment is one file, written once: the rows between two checkpoints, sealed as they are, and the second
checkpoint. Object stores cannot append, and a file that is held open can be unlinked unnoticed. The folder:

    segments/00000000/000000000042.jsonl   one JSON object a line: rows, then the checkpoint
    keys/<key id>.json                     a sealed data key; apart, so that destroying a key can reach it
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

_SEGMENT = re.compile(r"/(\d{12})\.jsonl$")
_SEGMENTS_A_FOLDER = 10_000


class SegmentStore:
    """Segments in a folder that fsspec reaches. Errors of the file system pass through.

    Args:
        url: of the folder; made at the first write. A local one belongs to its owner alone (mode 0700).
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self._url)
        return fs, root.rstrip("/")

    def numbers(self) -> set[int]:
        """Return the numbers of all segments there are."""
        fs, root = self._place
        # What another process wrote or removed must show.
        fs.invalidate_cache()
        try:
            found = fs.find(f"{root}/segments")
        except FileNotFoundError:
            return set()
        return {int(match[1]) for path in found if (match := _SEGMENT.search(path))}

    def has(self, number: int) -> bool:
        """Tell whether a segment is there."""
        return self._exists(_segment_path(number))

    def write(self, number: int, content: IO[bytes]) -> None:
        """Write a segment; it is there as a whole or not at all, and on the disk of a local folder after."""
        self._write(_segment_path(number), content)

    def lines(self, number: int) -> Iterator[bytes]:
        """Yield a segment's lines."""
        fs, root = self._place
        with fs.open(f"{root}/{_segment_path(number)}", "rb") as file:
            yield from file

    def has_key(self, key_id: str) -> bool:
        """Tell whether a data key is there."""
        return self._exists(_key_path(key_id))

    def write_key(self, key_id: str, content: IO[bytes]) -> None:
        """Write a sealed data key."""
        self._write(_key_path(key_id), content)

    def forget_key(self, key_id: str) -> None:
        """Remove a sealed data key: what it sealed can be read no more."""
        fs, root = self._place
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{_key_path(key_id)}")

    def _exists(self, name: str) -> bool:
        fs, root = self._place
        fs.invalidate_cache()
        return bool(fs.exists(f"{root}/{name}"))

    def _write(self, name: str, content: IO[bytes]) -> None:
        fs, root = self._place
        path = f"{root}/{name}"
        if isinstance(fs, LocalFileSystem):
            _write_durably(Path(path), content)
            return
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with fs.open(path, "wb") as file:
            shutil.copyfileobj(content, file)


def _segment_path(number: int) -> str:
    return f"segments/{number // _SEGMENTS_A_FOLDER:08d}/{number:012d}.jsonl"


def _key_path(key_id: str) -> str:
    return f"keys/{key_id}.json"


def _write_durably(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
