"""An embedded PostgreSQL: the programs of the wheel, run directly.

The wheel's own Python interface is not used: it shares one server among processes by reference counts
that a SIGKILL leaves wrong, creates a system user and opens parent folders to everybody when run as
root, and authenticates nobody.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, ClassVar

import psycopg
from psycopg import sql

from techdeck_tasks.devservices.account import (
    ServiceAccount,
    can_run,
    copy_for,
    data_argument,
    service_account,
)
from techdeck_tasks.devservices.binaries import BinaryResolver, postgres_binary
from techdeck_tasks.devservices.errors import DevServiceError
from techdeck_tasks.devservices.ports import LOOPBACK, PortChooser, free_port
from techdeck_tasks.devservices.server import EmbeddedServer, Retention
from techdeck_tasks.devservices.supervision import Step

if TYPE_CHECKING:
    from pathlib import Path

    from techdeck_tasks.clock import Clock

USER = "techdeck"
DATABASE = "techdeck"
_CONNECT_SECONDS = 2
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, data folders lie deep
    "max_connections": "200",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
_UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL 18 with a database and a superuser `techdeck`, scram password authentication, loopback only.

    Args:
        data_dir: see `EmbeddedServer`, as the other arguments.
        port: see there.
        retention: see there.
        clock: see there.
        choose_port: see there.
        binary: finds the `postgres` program; `initdb` must lie beside it.
    """

    service: ClassVar[str] = "PostgreSQL"
    program_name: ClassVar[str] = "postgres"
    folder_name: ClassVar[str] = "postgres"
    orphan_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": SIGTERM would wait for the clients

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        retention: Retention = Retention.KEEP,
        clock: Clock | None = None,
        choose_port: PortChooser = free_port,
        binary: BinaryResolver = postgres_binary,
    ) -> None:
        super().__init__(data_dir, port=port, retention=retention, clock=clock, choose_port=choose_port)
        self._binary = binary

    @property
    def _working_folder(self) -> Path:
        return self._folder / "cluster"

    @property
    def _pid_file(self) -> Path:
        return self._working_folder / "postmaster.pid"

    @property
    def _stop_signals(self) -> tuple[tuple[signal.Signals, float], ...]:
        return ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 2.0))

    def _stored_password(self) -> str:
        if self._working_folder.exists() and not (self._folder / "password").exists():
            raise DevServiceError(
                f"{self.service}: {self._folder} holds data but its password file is missing; restore that "
                "file, or remove the folder and its data"
            )
        return super()._stored_password()

    def _order_steps(self, port: int, password: str) -> tuple[Step, ...]:
        program = self._binary()
        cluster = self._working_folder
        account = service_account(cluster)
        if account is not None and not can_run(program):
            program = copy_for(account, program, self._temporary_folder())
        settings = _SETTINGS | {"port": str(port)}
        if self._retention is Retention.REMOVE:
            settings |= _UNSAFE_BUT_FAST
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        server = Step(
            argv=(str(program), "-D", data_argument(cluster, account), *options),
            cwd=str(cluster),
            account=account,
        )
        if cluster.exists():
            return (server,)
        return (self._initialisation(program.with_name("initdb"), account, password), server)

    def _initialisation(self, initdb: Path, account: ServiceAccount | None, password: str) -> Step:
        # Renamed when complete: what an interrupted initdb left behind is never taken for a cluster.
        draft = self._folder / "cluster.new"
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        if account is not None:
            os.chown(draft, account.uid, account.gid)
        durability = ["--no-sync"] if self._retention is Retention.REMOVE else []
        return Step(
            argv=(
                str(initdb),
                f"--pgdata={data_argument(draft, account)}",
                f"--username={USER}",
                "--auth=scram-sha-256",
                "--pwfile=/dev/stdin",
                "--encoding=UTF8",
                # Independent of the machine's locales, so that data folders can be moved.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--no-instructions",
                *durability,
            ),
            cwd=str(draft),
            stdin=f"{password}\n",
            account=account,
            rename=str(self._working_folder),
        )

    def _ping(self, port: int, password: str) -> bool:
        try:
            with psycopg.connect(
                host=LOOPBACK,
                port=port,
                user=USER,
                password=password,
                dbname="postgres",
                sslmode="disable",
                gssencmode="disable",
                connect_timeout=_CONNECT_SECONDS,
                autocommit=True,
            ) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                if known.fetchone() is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg.OperationalError:
            return False
        return True

    def _url(self, port: int, password: str) -> str:
        return f"postgresql+psycopg://{USER}:{password}@{LOOPBACK}:{port}/{DATABASE}"
