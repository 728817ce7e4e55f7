"""The lock of a server's data folder."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING

from techdeck_tasks.devservices.errors import DevServiceError

if TYPE_CHECKING:
    from pathlib import Path

    from techdeck_tasks.clock import Clock

_POLL_SECONDS = 0.02


class FolderLock:
    """An advisory lock on a file, freed by the kernel when its last holder ends.

    It is taken by the owner, inherited by the watchdog and then closed by the owner: a crash, even
    SIGKILL, leaves nothing to clean up, and processes the owner forks do not prolong it.

    Args:
        path: the lock file; it names the owner for the error message of another process.
        service: the server's name, for the error message.
        patience_seconds: how long the watchdog of a dead owner may take to stop its server.
    """

    def __init__(self, path: Path, service: str, clock: Clock, *, patience_seconds: float) -> None:
        self._path = path
        self._service = service
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file, to be inherited by the watchdog."""
        if self._descriptor is None:
            raise ValueError("the lock is not held")
        return self._descriptor

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DevServiceError: a living owner uses the folder, or a dead one's server does not stop in time.
        """
        from techdeck_tasks.devservices.orphans import birth  # noqa: PLC0415 - psutil comes with the extra

        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for_lock(descriptor)
            owner = json.dumps({"pid": os.getpid(), "born": birth(os.getpid())}).encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner, 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def hand_over(self) -> None:
        """Close this process's copy; whoever inherited the lock holds it now, else it is free."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _wait_for_lock(self, descriptor: int) -> None:
        deadline = self._clock.monotonic() + self._patience_seconds
        while not _try_lock(descriptor):
            self._refuse_living_owner()
            if self._clock.monotonic() > deadline:
                raise DevServiceError(
                    f"{self._service}: {self._path.parent} is still in use {self._patience_seconds:g} s "
                    f"after its owner ended; stop the process that `lsof {self._path}` names, "
                    "or choose another folder"
                )
            self._clock.sleep(_POLL_SECONDS)

    def _refuse_living_owner(self) -> None:
        from techdeck_tasks.devservices.orphans import is_alive  # noqa: PLC0415 - as above

        try:
            owner = json.loads(self._path.read_text())
        except ValueError:
            return  # the holder is about to write it
        if is_alive(owner["pid"], owner["born"]):
            raise DevServiceError(
                f"{self._service}: the data folder {self._path.parent} is in use by process {owner['pid']}; "
                "stop that process, or choose another folder"
            )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
