"""The exit codes, which scripts may rely on."""

from __future__ import annotations

from enum import IntEnum

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
