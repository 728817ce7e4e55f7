"""The owner's side of the watchdog: give it an order, see that it lives, ask it to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

    from techdeck_tasks.devservices.account import ServiceAccount

_WATCHDOG = Path(__file__).with_name("watchdog.py")
_LOG_ROTATION_BYTES = 8 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 6
_EXIT_PATIENCE_SECONDS = 5.0
# Nothing of the owner's environment: it may hold secrets, and PG* variables would change the server.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Step:
    """One program of an order.

    Attributes:
        argv: the command line; every user of the machine can read it, so no secret belongs here.
        cwd: the working folder.
        stdin: text for standard input; None: empty.
        account: the account to run as; None: the owner's.
        rename: what `cwd` is called from now on, if the program succeeds.
    """

    argv: tuple[str, ...]
    cwd: str
    stdin: str | None = dataclasses.field(default=None, repr=False)
    account: ServiceAccount | None = None
    rename: str | None = None
    env: dict[str, str] = dataclasses.field(default_factory=lambda: dict(SERVER_ENVIRONMENT))


@dataclass(frozen=True, slots=True)
class Order:
    """What a watchdog does.

    Attributes:
        steps: run one after the other, each must succeed; the last one is the server.
        stop_signals: (signal, seconds to wait for its effect), tried in turn.
        remove: files and folders to delete once the server was stopped.
        remove_if_empty: a folder that two servers share; the last one to end removes it.
    """

    steps: tuple[Step, ...]
    stop_signals: tuple[tuple[signal.Signals, float], ...]
    remove: tuple[str, ...] = ()
    remove_if_empty: str | None = None

    @property
    def stop_seconds(self) -> float:
        """The longest an orderly stop can take."""
        return sum(seconds for _, seconds in self.stop_signals)


class Supervised:
    """A running watchdog with its server."""

    def __init__(self, order: Order, *, log: Path, lock_descriptor: int | None = None) -> None:
        self._order = order
        self._log = log
        self._owner_pid = os.getpid()
        _rotate(log)
        with _open_private(log) as output:
            self._log_start = output.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                # -I -S: neither the owner's folder nor its environment decides what is imported.
                [sys.executable, "-I", "-S", str(_WATCHDOG)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[] if lock_descriptor is None else [lock_descriptor],
                # A terminal's Ctrl-C reaches the owner alone, which then stops the servers in order.
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        message = {"owner_pid": self._owner_pid, **dataclasses.asdict(order)}
        try:
            self._pipe.write(json.dumps(message).encode() + b"\n")
            self._pipe.flush()
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the watchdog lives, which it does as long as the server."""
        return self._process.poll() is None

    def stop(self) -> bool:
        """Have the server stopped and wait for it.

        Returns:
            False if the watchdog had to be killed or was gone: its server may still run.
        """
        if os.getpid() != self._owner_pid:
            # A forked child leaves a `with` block it inherited: the servers are not its own.
            return True
        with contextlib.suppress(BrokenPipeError):  # the watchdog died before it had read the order
            self._pipe.close()
        try:
            return self._process.wait(self._order.stop_seconds + _EXIT_PATIENCE_SECONDS) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False

    def output(self) -> str:
        """Return the end of what was logged since the start."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            return log.read().decode(errors="replace")

    def last_lines(self) -> str:
        """Return the last lines of the log, on one line."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        return " / ".join(lines[-_TAIL_LINES:]) or "(empty)"


def _open_private(path: Path) -> io.FileIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return io.FileIO(descriptor, "ab")


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_ROTATION_BYTES:
        log.replace(log.with_suffix(".log.1"))
