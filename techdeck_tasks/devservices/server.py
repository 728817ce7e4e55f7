"""What both embedded servers have in common: folder, lock, port, start, health and stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from abc import ABC, abstractmethod
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.devservices.binaries import REMEDY
from techdeck_tasks.devservices.errors import DevServiceError
from techdeck_tasks.devservices.lock import FolderLock
from techdeck_tasks.devservices.ports import PortChooser, free_port, port_taken, require_free
from techdeck_tasks.devservices.supervision import Order, Step, Supervised

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from types import TracebackType

_START_SECONDS = 60.0
_TAKEOVER_SECONDS = 30.0
_POLL_SECONDS = 0.01
_PORT_ATTEMPTS = 5
_PORT_COLLISIONS = ("Address already in use", "Address in use")  # glibc and macOS; musl


class Retention(Enum):
    """What becomes of the data when the server stops."""

    KEEP = auto()
    REMOVE = auto()


class EmbeddedServer(ABC):
    """A server that lives as long as its owner, on a loopback port, with a random password.

    Keep the object: when it is garbage-collected, the server stops. A process forked by the owner may use
    the server; it cannot stop it.

    Args:
        data_dir: holds the server's folder and log. None: a temporary folder, removed at `stop`.
        port: 1 to 65535; None: a free one, another one at each start.
        retention: `REMOVE`, for a `data_dir` that is temporary and this owner's alone, deletes the server's
            folder and log at `stop` and saves every effort of surviving a power failure. `data_dir=None`
            implies it.
        clock: bounds the waiting.
        choose_port: finds a port when none is given; asked again when another process was faster.
    """

    service: ClassVar[str]
    """The name in messages."""
    program_name: ClassVar[str]
    """The name of the server's processes."""
    folder_name: ClassVar[str]
    """The folder inside `data_dir`; the log is beside it, with the suffix ``.log``."""
    orphan_signal: ClassVar[signal.Signals]
    """What makes a server end in order."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        retention: Retention = Retention.KEEP,
        clock: Clock | None = None,
        choose_port: PortChooser = free_port,
    ) -> None:
        self._given_dir = data_dir
        self._given_port = port
        self._retention = Retention.REMOVE if data_dir is None else retention
        self._clock = clock or SystemClock()
        self._choose_port = choose_port
        self._data_dir: Path | None = None
        self._supervised: Supervised | None = None
        self._owner_pid = os.getpid()
        self._port: int | None = None
        self._password: str | None = None
        self._scratch: list[Path] = []

    @property
    def url(self) -> str:
        """The running server's URL, with its password.

        Raises:
            DevServiceError: it is not running.
        """
        if self._supervised is None or self._port is None or self._password is None:
            raise DevServiceError(f"{self.service}: not running; call start() first")
        return self._url(self._port, self._password)

    def start(self) -> Self:
        """Start the server and wait until it answers. Does nothing if it answers already.

        Raises:
            DevServiceError: a program is missing, the port or the folder is taken, or it does not answer
                within 60 s; nothing is left running.
        """
        if self._supervised is None or not self._answers():
            self.launch()
            self.wait_ready()
        return self

    def launch(self) -> None:
        """Start the server without waiting for it; `wait_ready` must follow.

        Raises:
            DevServiceError: as `start`.
        """
        self.stop()
        self._owner_pid = os.getpid()
        with self._stopped_on_failure():
            if self._given_port is not None:
                require_free(self._given_port, self.service)
            if self._given_dir is None:
                self._data_dir = self._temporary_folder()
            else:
                self._given_dir.mkdir(parents=True, exist_ok=True)
                self._data_dir = self._given_dir.resolve()
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._spawn()

    def wait_ready(self) -> None:
        """Wait until the launched server answers; on a lost race for a free port, try another one.

        Raises:
            DevServiceError: as `start`.
        """
        with self._stopped_on_failure():
            deadline = self._clock.monotonic() + _START_SECONDS
            attempts_left = _PORT_ATTEMPTS - 1
            while not self._answers():
                if self._watched.is_running:
                    if self._clock.monotonic() > deadline:
                        raise DevServiceError(
                            f"{self.service}: no answer within {_START_SECONDS:g} s; {self._log_quote()}"
                        )
                    self._clock.sleep(_POLL_SECONDS)
                elif attempts_left == 0 or not self._lost_port():
                    raise DevServiceError(f"{self.service}: it ended while starting; {self._log_quote()}")
                elif self._given_port is not None:
                    raise port_taken(self._given_port, self.service)
                else:
                    attempts_left -= 1
                    self._watched.stop()
                    self._spawn()

    def stop(self) -> None:
        """Stop the server, orderly if it obeys, and wait until it is gone. Does nothing if none runs."""
        watched, self._supervised = self._supervised, None
        scratch, self._scratch = self._scratch, []
        if os.getpid() != self._owner_pid:
            # A forked child leaves a `with` block it inherited: neither server nor data are its own.
            return
        if watched is not None and not watched.stop():
            self._stop_orphans()
        for path in scratch:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _order_steps(self, port: int, password: str) -> tuple[Step, ...]:
        """Prepare the folder and return what the watchdog runs."""

    @abstractmethod
    def _ping(self, port: int, password: str) -> bool:
        """Tell whether the server does its work; make what a client needs to find."""

    @abstractmethod
    def _url(self, port: int, password: str) -> str:
        """Return the clients' URL."""

    @property
    @abstractmethod
    def _working_folder(self) -> Path:
        """Where the server's processes work; it identifies them."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The file the server removes when it ends in order."""

    @property
    @abstractmethod
    def _stop_signals(self) -> tuple[tuple[signal.Signals, float], ...]:
        """Signals to stop the server with, and the seconds to wait after each."""

    @property
    def _folder(self) -> Path:
        assert self._data_dir is not None
        return self._data_dir / self.folder_name

    @property
    def _log(self) -> Path:
        return self._folder.with_suffix(".log")

    @property
    def _watched(self) -> Supervised:
        assert self._supervised is not None
        return self._supervised

    def _answers(self) -> bool:
        assert self._port is not None
        assert self._password is not None
        # Until our server runs, a client's attempts would only slow it down, or reach another server.
        return self._pid_file.exists() and self._ping(self._port, self._password)

    def _lost_port(self) -> bool:
        output = self._watched.output()
        return any(message in output for message in _PORT_COLLISIONS)

    def _log_quote(self) -> str:
        return f"the last lines of {self._log}: {self._watched.last_lines()}"

    def _temporary_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="techdeck-"))
        self._scratch.append(folder)
        return folder

    def _spawn(self) -> None:
        lock = FolderLock(
            self._folder / "lock", self.service, self._clock, patience_seconds=_TAKEOVER_SECONDS
        )
        lock.acquire()
        try:
            if self._retention is Retention.REMOVE and self._folder not in self._scratch:
                # Only now: a folder whose lock another owner holds is not ours to remove.
                self._scratch += [self._folder, self._log]
            if self._pid_file.exists():
                # We hold the lock, so nobody watches over a server that may still run here. The file has
                # to go: PostgreSQL does not start while any process has the id in it.
                self._stop_orphans()
                self._pid_file.unlink(missing_ok=True)
            self._password = self._stored_password()
            self._port = self._given_port or self._choose_port()
            order = Order(
                steps=self._order_steps(self._port, self._password),
                stop_signals=self._stop_signals,
                remove=tuple(str(path) for path in self._scratch),
                remove_if_empty=str(self._data_dir) if self._retention is Retention.REMOVE else None,
            )
            self._supervised = Supervised(order, log=self._log, lock_descriptor=lock.descriptor)
        finally:
            lock.hand_over()

    def _stored_password(self) -> str:
        file = self._folder / "password"
        if not file.exists():
            write_private(file, secrets.token_urlsafe(32))
        return file.read_text()

    def _stop_orphans(self) -> None:
        from techdeck_tasks.devservices.orphans import stop_orphans  # noqa: PLC0415 - psutil: the extra

        stop_orphans(self.program_name, self._working_folder, self.orphan_signal, self._clock)

    @contextlib.contextmanager
    def _stopped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            self.stop()
            raise DevServiceError(f"{self.service}: {error.name} is not installed; run: {REMEDY}") from None
        except OSError as error:
            self.stop()
            raise DevServiceError(
                f"{self.service}: {error}; check that this user may write to the data folder and that "
                "the disk has room, or choose another folder"
            ) from error
        except BaseException:
            self.stop()
            raise


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
