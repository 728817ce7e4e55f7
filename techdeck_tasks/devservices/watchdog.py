"""Runs one server for as long as its owner lives. A program, not a module to import.

The owner starts it in a session of its own and hands it a JSON order on standard input (so that no
password shows in a process list), then keeps that pipe open. The watchdog runs the order's steps,
the last of which is the server, and stops the server when

- the pipe closes: the owner asks for it, exits or is killed, by whatever signal; or
- its parent process changes. A process that the owner forked (a prefork worker) holds a copy of the
  pipe's other end and would keep it open after the owner's death; who the parent is cannot be inherited.

The alternative, `PR_SET_PDEATHSIG`, exists on Linux only, fires when the creating *thread* ends and
leaves no chance of an orderly shutdown. This works on every POSIX system.

It also holds the data folder's lock (an open, locked file inherited from the owner): the lock is free
exactly when the server is gone. Only the standard library is used and the file is run by its path:
importing the package would cost a second and all of its memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNER_CHECK_SECONDS = 0.25


class _StopRequestedError(Exception):
    """The owner is gone or wants the server stopped."""


class _Watch:
    """Waits for what comes first: the end of a child, or of the owner."""

    def __init__(self, owner_pid: int) -> None:
        self._owner_pid = owner_pid
        self._signalled = False
        self._wake, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Handlers, not SIG_IGN: an ignored signal would stay ignored in the servers.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        # A thread of the owner may have blocked signals; that mask is inherited.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def wait(self, child: subprocess.Popen[bytes]) -> int:
        """Return the child's exit status, or raise when the server has to stop."""
        while True:
            status = child.poll()
            if status is not None:
                return status
            if self._signalled or os.getppid() != self._owner_pid:
                raise _StopRequestedError
            readable, _, _ = select.select([0, self._wake], [], [], _OWNER_CHECK_SECONDS)
            if self._wake in readable:
                os.read(self._wake, 4096)
            if 0 in readable and not os.read(0, 4096):
                raise _StopRequestedError

    def _on_signal(self, *_: object) -> None:
        self._signalled = True


def _start(step: dict[str, Any]) -> subprocess.Popen[bytes]:
    account = step["account"]
    identity: dict[str, Any] = {}
    if account is not None:
        identity = {"user": account["uid"], "group": account["gid"], "extra_groups": []}
    with _stdin(step["stdin"], account) as stdin:
        return subprocess.Popen(  # noqa: S603 - the order comes from the owner's pipe
            step["argv"], cwd=step["cwd"], env=step["env"], stdin=stdin, **identity
        )


@contextlib.contextmanager
def _stdin(text: str | None, account: dict[str, int] | None) -> Iterator[int]:
    if text is None:
        yield subprocess.DEVNULL
        return
    reader, writer = os.pipe()
    if account is not None:
        # A program that opens /dev/stdin by name needs the right to read the pipe itself.
        os.fchown(reader, account["uid"], account["gid"])
    os.write(writer, text.encode())
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)


def _stop(child: subprocess.Popen[bytes], signals: list[list[float]]) -> None:
    for number, patience_seconds in signals:
        child.send_signal(int(number))
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience_seconds)
            return


def _remove(paths: list[str], shared_folder: str | None) -> None:
    for path in map(Path, paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if shared_folder is not None:
        with contextlib.suppress(OSError):
            Path(shared_folder).rmdir()


def main() -> int:
    """Read the order, run its steps and return the exit status."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # the owner died before it had given the order
    order = json.loads(line)
    watch = _Watch(order["owner_pid"])
    child: subprocess.Popen[bytes] | None = None
    try:
        for step in order["steps"]:
            child = _start(step)
            status = watch.wait(child)
            if status != 0:
                return 1
            if step["rename"] is not None:
                Path(step["cwd"]).rename(step["rename"])
    except _StopRequestedError:
        if child is not None:
            _stop(child, order["stop_signals"])
        _remove(order["remove"], order["remove_if_empty"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
