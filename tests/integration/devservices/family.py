"""Looking at processes, of which some end while they are looked at: PostgreSQL's come and go."""

from __future__ import annotations

import psutil


def is_named(process: psutil.Process, *names: str) -> bool:
    try:
        return process.name() in names
    except psutil.NoSuchProcess:
        return False


def is_watchdog(process: psutil.Process) -> bool:
    try:
        return any("watchdog.py" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False
