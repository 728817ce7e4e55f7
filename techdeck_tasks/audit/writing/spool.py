"""Where sealed events wait on disk while Redis is away.

Files of at most about 1 MiB, each a run of frames

    length u32 | crc32 of the payload u32 | crc32 of the eight bytes before u32 | payload

big-endian, each fsynced before `append` returns. Whoever appends to a file or drains it holds its advisory
lock, and nobody waits for it: a file found locked is left alone. So no file belongs to a process, and what a
dead or idle one left is drained by any other.

All files together are bounded: a full spool refuses. A torn last frame was acknowledged to nobody and is left
out. Damage anywhere else is logged, counted and set aside in a ``.damaged`` file, after every frame that is
still readable was sent.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
import uuid
import weakref
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 20
"""A file that has reached this gets no more frames: what is sent, or sent again, at once is bounded."""

MAX_DAMAGED_FILES = 16
"""So many damaged files are kept for examination, the newest."""

_FRAME = struct.Struct(">III")
_CHECKED = struct.Struct(">II")
_SUFFIX = ".spool"
_DAMAGED_SUFFIX = ".damaged"


_DRAINED = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
"""How a file is opened to be drained. No link is followed: behind it may be any file, or an endless one."""


class SpoolFullError(OSError):
    """The files of the spool have reached their bound."""


@dataclass(frozen=True, slots=True)
class SpoolSize:
    """What a spool's folder holds.

    Attributes:
        files: how many wait to be sent.
        size_bytes: of these.
        damaged_files: how many are kept for examination.
    """

    files: int
    size_bytes: int
    damaged_files: int


class Spool:
    """A folder of spool files, shared by the processes of one machine; safe for threads and after a fork.

    Args:
        folder: made on first use, readable by its owner alone.
        max_bytes: bound of all waiting files together. Processes that append at the same moment may each
            exceed it by their one event.

    Attributes:
        damaged: how many damaged files this process set aside.
    """

    def __init__(self, folder: Path, max_bytes: int = 256 << 20) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._path = folder
        self._unreadable: set[Path] = set()
        self.damaged = 0
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _part_from_parent(this()))

    def append(self, payload: bytes) -> None:
        """Keep `payload`; it is on disk when this returns.

        Raises:
            SpoolFullError: its bound is reached; nothing of `payload` was kept.
            OSError: the disk is full or the folder cannot be written; nothing of `payload` was kept.
        """
        header = _CHECKED.pack(len(payload), zlib.crc32(payload))
        frame = b"".join((header, zlib.crc32(header).to_bytes(4), payload))
        with self._lock:
            if self.size().size_bytes + len(frame) > self._max_bytes:
                raise SpoolFullError(
                    f"the audit spool {self._folder} holds {self._max_bytes:,} bytes, its bound"
                )
            descriptor, size_bytes = self._take_file()
            try:
                _write(descriptor, frame)
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size_bytes)
                # Whatever is left of the frame must stay the end of its file.
                self._close()
                raise
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def is_empty(self) -> bool:
        """Tell whether no file waits, neither this process's nor another's."""
        try:
            with os.scandir(self._folder) as entries:
                return not any(entry.name.endswith(_SUFFIX) for entry in entries)
        except FileNotFoundError:
            return True

    def size(self) -> SpoolSize:
        """Measure the folder."""
        files, size_bytes, damaged = 0, 0, 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX):
                        # Somebody who drains may remove it meanwhile.
                        with suppress(FileNotFoundError):
                            # Not what a link points to: it is none of ours, and may be of any size.
                            size_bytes += entry.stat(follow_symlinks=False).st_size
                            files += 1
                    damaged += entry.name.endswith(_DAMAGED_SUFFIX)
        except FileNotFoundError:
            pass
        return SpoolSize(files, size_bytes, damaged)

    def drain(self, send: Callable[[Sequence[bytes]], None], max_files: int | None = None) -> int:
        """Hand the waiting payloads to `send`, a file at a time, oldest first; return how many.

        A file is deleted after `send` returned. If `send` raises, its payloads stay and will be sent again.
        One that cannot be opened, such as another user's, or that is a link or no file at all, is told of
        once, stays, and holds up no other.
        """
        sent, done = 0, 0
        for path in self._paths():
            if done == max_files:
                break
            try:
                file = os.fdopen(os.open(path, _DRAINED), "r+b")
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell_unreadable(path, error)
                continue
            with file:
                if not _own(file.fileno(), path):
                    continue
                done += 1
                payloads, damage = _read_frames(file.read())
                if payloads:
                    send(payloads)
                    sent += len(payloads)
                if damage is None:
                    path.unlink()
                else:
                    self._set_aside(path, damage)
        return sent

    def _tell_unreadable(self, path: Path, error: OSError) -> None:
        if path not in self._unreadable:
            self._unreadable.add(path)
            logger.error("the audit spool file %s cannot be read (%s); mend it", path, type(error).__name__)

    def _set_aside(self, path: Path, damage: str) -> None:
        kept = path.with_suffix(_DAMAGED_SUFFIX)
        path.rename(kept)
        self.damaged += 1
        logger.error("audit spool file %s is damaged (%s); kept for examination", kept, damage)
        for old in sorted(self._folder.glob(f"*{_DAMAGED_SUFFIX}"))[:-MAX_DAMAGED_FILES]:
            old.unlink(missing_ok=True)
            logger.critical("damaged audit spool file %s is removed: newer ones take its place", old)

    def _paths(self) -> list[Path]:
        # The names begin with the time of creation.
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def _take_file(self) -> tuple[int, int]:
        """Return a file that is locked for us, and its size in bytes."""
        if self._descriptor is not None:
            size_bytes = os.fstat(self._descriptor).st_size
            if size_bytes < MAX_FILE_BYTES and _own(self._descriptor, self._path):
                # Not the size from before the lock: a drain in between may have met the same file.
                return self._descriptor, os.fstat(self._descriptor).st_size
            self._close()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            self._path = self._folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}{_SUFFIX}"
            self._descriptor = os.open(self._path, flags, 0o600)
            # Somebody who drains may have found the empty file first, and removed it.
            if _own(self._descriptor, self._path):
                _sync_folder(self._folder)
                return self._descriptor, 0
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _part_from_parent(spool: Spool | None) -> None:
    # A child must neither write into its parent's file, whose lock it shares, nor wait for a thread of it.
    if spool is not None:
        spool._lock = threading.Lock()  # noqa: SLF001 - a part of the class
        spool._close()  # noqa: SLF001 - as above


def _own(descriptor: int, path: Path) -> bool:
    """Lock a file; tell whether nobody else has it and it still has its name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Not the number of its links: one that was set aside has a name too, and takes no more frames.
    try:
        return path.lstat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_frames(data: bytes) -> tuple[list[bytes], str | None]:
    """Return the readable payloads, and what is damaged: None where nothing is, or the last frame is torn."""
    payloads: list[bytes] = []
    bad, offset = 0, 0
    while len(data) - offset >= _FRAME.size:
        length, checksum, header_checksum = _FRAME.unpack_from(data, offset)
        start = offset + _FRAME.size
        if zlib.crc32(data[offset : start - 4]) != header_checksum:
            return payloads, f"no frame at byte {offset} of {len(data)}, {bad} bad frames before"
        payload = data[start : start + length]
        if len(payload) < length:
            break
        if zlib.crc32(payload) == checksum:
            payloads.append(payload)
        else:
            bad += 1
        offset = start + length
    return payloads, f"{bad} bad frames" if bad else None
