"""An embedded Redis: `redis-server` of the system, else of the wheel."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import TYPE_CHECKING, ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from techdeck_tasks.devservices.binaries import BinaryResolver, redis_binary
from techdeck_tasks.devservices.errors import DevServiceError
from techdeck_tasks.devservices.ports import LOOPBACK, PortChooser, free_port
from techdeck_tasks.devservices.server import EmbeddedServer, Retention, write_private
from techdeck_tasks.devservices.supervision import SERVER_ENVIRONMENT, Step

if TYPE_CHECKING:
    from pathlib import Path

    from techdeck_tasks.clock import Clock

_CONNECT_SECONDS = 2.0
_MULTI_PART_VERSION = 7
_CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
daemonize no
dir ./
pidfile redis.pid
logfile ""
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class EmbeddedRedis(EmbeddedServer):
    """Redis with a password, loopback only, an append-only file synced each second, and no eviction.

    Args:
        data_dir: see `EmbeddedServer`, as the other arguments.
        port: see there.
        retention: see there.
        clock: see there.
        choose_port: see there.
        binary: finds the `redis-server` program.
    """

    service: ClassVar[str] = "Redis"
    program_name: ClassVar[str] = "redis-server"
    folder_name: ClassVar[str] = "redis"
    orphan_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        retention: Retention = Retention.KEEP,
        clock: Clock | None = None,
        choose_port: PortChooser = free_port,
        binary: BinaryResolver = redis_binary,
    ) -> None:
        super().__init__(data_dir, port=port, retention=retention, clock=clock, choose_port=choose_port)
        self._binary = binary

    @property
    def _working_folder(self) -> Path:
        return self._folder

    @property
    def _pid_file(self) -> Path:
        return self._folder / "redis.pid"

    @property
    def _stop_signals(self) -> tuple[tuple[signal.Signals, float], ...]:
        return ((signal.SIGTERM, 15.0), (signal.SIGKILL, 2.0))

    def _order_steps(self, port: int, password: str) -> tuple[Step, ...]:
        program = self._binary()
        self._refuse_newer_data(program)
        configuration = self._folder / "redis.conf"
        write_private(configuration, _CONFIGURATION.format(host=LOOPBACK, port=port, password=password))
        return (Step(argv=(str(program), str(configuration)), cwd=str(self._folder)),)

    def _refuse_newer_data(self, program: Path) -> None:
        # Redis before 7 does not see the folder that Redis 7 keeps its data in: it would start empty.
        if not (self._folder / "appendonlydir").exists():
            return
        answer = subprocess.run(  # noqa: S603 - our own program
            [program, "--version"], env=SERVER_ENVIRONMENT, capture_output=True, text=True, check=True
        )
        version = re.search(r"v=(\d+)", answer.stdout)
        if version and int(version[1]) < _MULTI_PART_VERSION:
            raise DevServiceError(
                f"{self.service}: {self._folder} was written by Redis 7 or newer, which {program} (version "
                f"{version[1]}) cannot read; put a newer redis-server on PATH, or choose another folder"
            )

    def _ping(self, port: int, password: str) -> bool:
        with redis.Redis(
            host=LOOPBACK,
            port=port,
            password=password,
            socket_timeout=_CONNECT_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                return False

    def _url(self, port: int, password: str) -> str:
        return f"redis://:{password}@{LOOPBACK}:{port}/0"
