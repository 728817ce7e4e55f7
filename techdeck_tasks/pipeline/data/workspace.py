"""Private local folders in which an attempt has its data in the clear; gone when it ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "techdeck-work-"
_SETTLING_S = 60.0
"""A folder this young may not be locked yet by the process that just made it."""


@contextmanager
def private_workspace() -> Iterator[Path]:
    """Yield an empty folder that only this user may enter (mode 0700), and remove it at the end.

    The folder is locked while its process lives, so that `remove_abandoned` can tell what a killed process
    left behind.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder)


def remove_abandoned() -> int:
    """Remove the workspaces of this user's processes that were killed; return how many there were."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            facts = folder.lstat()
            if facts.st_uid != os.getuid() or time.time() - facts.st_ctime < _SETTLING_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # its process has just removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        finally:
            os.close(descriptor)
    return removed
