"""The exit codes, which scripts may rely on."""

from __future__ import annotations

import signal
from enum import IntEnum
from types import FrameType
from typing import NoReturn

from techdeck_tasks.errors import EncryptionError, TechDeckError


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    """The run failed, or verify found something."""
    BAD_INPUT = 2
    """A file, a key, an argument or a setting is not as it must be; nothing was started."""
    UNAVAILABLE = 3
    """A server cannot be reached; nothing was started."""
    INTERRUPTED = 130
    """By Ctrl-C (SIGINT); what was sent to the workers goes on."""
    TERMINATED = 143
    """By SIGTERM; `web`, `up` and the workers, which end by it, return `OK`."""


class Terminated(SystemExit):
    """SIGTERM came: what is open is closed, and the terminal is as it was."""

    def __init__(self) -> None:
        super().__init__(Exit.TERMINATED)


def end_at_sigterm() -> None:
    """Let SIGTERM unwind the main thread; by itself it ends Python where it stands.

    A display would leave the terminal on its other screen, and a half-started service its servers.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a handler's signature
    raise Terminated


_UNAVAILABLE_STATUS = 503
_CLIENT_ERRORS = range(400, 500)


def exit_of(error: Exception) -> Exit:
    """Return the exit code for an expected failure."""
    if isinstance(error, EncryptionError):
        return Exit.BAD_INPUT  # a key is not there; FAILED would say that verify found something
    if isinstance(error, TechDeckError):
        if error.http_status == _UNAVAILABLE_STATUS:
            return Exit.UNAVAILABLE
        return Exit.BAD_INPUT if error.http_status in _CLIENT_ERRORS else Exit.FAILED
    return Exit.BAD_INPUT
