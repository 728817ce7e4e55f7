"""PostgreSQL and Redis together, as an application needs them."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from techdeck_tasks.devservices.postgres import EmbeddedPostgres
from techdeck_tasks.devservices.redis_server import EmbeddedRedis
from techdeck_tasks.devservices.server import Retention

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class ServiceUrls:
    """Where the running servers are. The URLs hold passwords and are absent from the repr.

    Attributes:
        redis_url: for redis-py, Celery and `TECHDECK_REDIS_URL`.
        database_url: for SQLAlchemy with psycopg and `TECHDECK_DATABASE_URL`.
    """

    redis_url: str = field(repr=False)
    database_url: str = field(repr=False)


class DevServices:
    """Both servers, running as long as this process and this object live.

    Whatever ends the owner, SIGKILL included, ends the servers too.

    Args:
        data_dir: holds the data and the logs, and is kept; a second start finds the data again. None: a
            temporary folder, removed at `stop`.
        redis_port: 1 to 65535; None: a free one.
        postgres_port: 1 to 65535; None: a free one.
    """

    def __init__(
        self, data_dir: Path | None = None, *, redis_port: int | None = None, postgres_port: int | None = None
    ) -> None:
        self._data_dir = data_dir
        self._redis_port = redis_port
        self._postgres_port = postgres_port
        self._owner_pid = os.getpid()
        self._temporary_dir: Path | None = None
        self._servers: tuple[EmbeddedPostgres, EmbeddedRedis] | None = None

    def start(self) -> ServiceUrls:
        """Start both servers and wait until they answer: about a second. Does nothing if they answer already.

        Raises:
            DevServiceError: one of them cannot be started; nothing is left running.
        """
        try:
            if self._servers is None:
                postgres, redis = self._servers = self._new_servers()
                # Side by side: PostgreSQL takes most of the time.
                postgres.launch()
                redis.launch()
                redis.wait_ready()
                postgres.wait_ready()
            else:
                for server in self._servers:
                    server.start()
            postgres, redis = self._servers
        except BaseException:
            self.stop()
            raise
        return ServiceUrls(redis_url=redis.url, database_url=postgres.url)

    def stop(self) -> None:
        """Stop both servers and wait until they are gone. Does nothing if none runs, or in a forked child."""
        if os.getpid() != self._owner_pid:
            return
        servers, self._servers = self._servers, None
        for server in reversed(servers or ()):
            server.stop()
        temporary_dir, self._temporary_dir = self._temporary_dir, None
        if temporary_dir is not None:
            shutil.rmtree(temporary_dir, ignore_errors=True)

    def __enter__(self) -> ServiceUrls:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _new_servers(self) -> tuple[EmbeddedPostgres, EmbeddedRedis]:
        self._owner_pid = os.getpid()
        data_dir, retention = self._data_dir, Retention.KEEP
        if data_dir is None:
            data_dir = self._temporary_dir = Path(tempfile.mkdtemp(prefix="techdeck-"))
            retention = Retention.REMOVE
        return (
            EmbeddedPostgres(data_dir, port=self._postgres_port, retention=retention),
            EmbeddedRedis(data_dir, port=self._redis_port, retention=retention),
        )
