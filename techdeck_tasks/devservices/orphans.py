"""Processes that a crash left behind, told apart by what they are, never by a process id alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import signal

    from techdeck_tasks.clock import Clock

_CLOCK_TOLERANCE_SECONDS = 2.0
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.01


def birth(pid: int) -> float | None:
    """Return when the process started (seconds since the epoch), None if it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_alive(pid: int, born: float) -> bool:
    """Tell whether the process `pid` still is the one that started at `born`."""
    now = birth(pid)
    return now is not None and abs(now - born) <= _CLOCK_TOLERANCE_SECONDS


def is_over(process: psutil.Process) -> bool:
    """Tell whether the process is gone, or a zombie: in a container nobody may ever collect those."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def stop_orphans(program: str, folder: Path, orderly: signal.Signals, clock: Clock) -> None:
    """Stop every process named `program` whose working folder is `folder`.

    Both servers change into their data folder, so the pair is an identity that no reused process id
    can have. Processes of other users cannot be inspected and are left alone.

    Args:
        program: the name of the processes.
        folder: resolved, without symbolic links.
        orderly: the signal for the server's first process, which ends the others; after 10 s all are killed.
        clock: bounds the waiting.
    """
    orphans = [process for process in psutil.process_iter() if _serves(process, program, folder)]
    family = {process.pid for process in orphans}
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() not in family:
                process.send_signal(orderly)
    _wait(orphans, clock)
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(orphans, clock)


def _wait(processes: list[psutil.Process], clock: Clock) -> None:
    deadline = clock.monotonic() + _PATIENCE_SECONDS
    while not all(map(is_over, processes)) and clock.monotonic() < deadline:
        clock.sleep(_POLL_SECONDS)


def _serves(process: psutil.Process, program: str, folder: Path) -> bool:
    try:
        return process.name() == program and Path(process.cwd()) == folder
    except (psutil.Error, OSError):
        return False
