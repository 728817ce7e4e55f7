"""Where sealed events wait on disk while Redis is away.

One file a process, owned by an advisory lock; frames of ``length u32 | crc32 u32 | payload``, each fsynced
before `append` returns. A file whose owner died loses its lock and is adopted by whoever drains next.
A torn last frame was never acknowledged to anybody and is left out.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_FRAME = struct.Struct(">II")
_SUFFIX = ".spool"


class Spool:
    """A folder of spool files.

    Args:
        folder: made on first use, readable by its owner alone. Processes on one machine share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # A child must neither write into its parent's file nor wait for a lock a thread of it held.
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None

    def append(self, payload: bytes) -> None:
        """Keep `payload`; it is on disk when this returns.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        with self._lock:
            file = self._file or self._create()
            start = file.tell()
            try:
                file.write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.seek(start)
                file.truncate()
                raise

    def is_empty(self) -> bool:
        """Tell whether no file waits, neither this process's nor another's."""
        return not any(self._paths())

    def drain(self, send: Callable[[bytes], None]) -> int:
        """Hand every waiting payload to `send`, oldest file first, and delete what was sent; return how many.

        Files that another live process owns are left to it. If `send` raises, the rest stays for the next
        time; payloads already sent from that file will be sent again.
        """
        sent = 0
        with self._lock:
            own, self._file = self._file, None
            if own is not None:
                own.close()
            for path in self._paths():
                try:
                    file = path.open("rb")
                except FileNotFoundError:
                    continue
                with file:
                    if not _lock_file(file) or not path.exists():
                        continue
                    for payload in _frames(file):
                        send(payload)
                        sent += 1
                    path.unlink()
        return sent

    def _paths(self) -> list[Path]:
        try:
            return sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        except FileNotFoundError:
            return []

    def _create(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{uuid.uuid4()}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        _lock_file(self._file)
        return self._file


def _lock_file(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _frames(file: BinaryIO) -> Iterator[bytes]:
    while len(header := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum = _FRAME.unpack(header)
        payload = file.read(length)
        if len(payload) != length or zlib.crc32(payload) != checksum:
            return
        yield payload
