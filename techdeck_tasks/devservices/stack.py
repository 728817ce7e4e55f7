"""The whole service on one machine: both servers, keys, schema, workers and beat."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from celery import Celery

from techdeck_tasks.devservices.errors import DevServiceError
from techdeck_tasks.devservices.ports import LOOPBACK, require_free
from techdeck_tasks.devservices.services import DevServices, ServiceUrls
from techdeck_tasks.devservices.supervision import Order, Step, Supervised
from techdeck_tasks.runtime import create_app, runtime_of
from techdeck_tasks.settings import ENV_PREFIX, Settings, load_settings
from techdeck_tasks.storage.migration import upgrade

SETTINGS_FILE = "techdeck.env"
_READY_S = 60.0
_STOP_SIGNALS = ((signal.SIGTERM, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


class Stack:
    """Runs everything until `stop`, or until this process ends, however it ends.

    Args:
        data_dir: holds data, keys, logs and the settings file; made where missing, kept afterwards.
        concurrency: pipeline tasks at a time.
        overrides: further settings for the workers, by field name.
        metrics_port: where beat serves ``/metrics`` on loopback, if it is free; None: nowhere.
        on_step: told of each step as it is done.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        concurrency: int = 2,
        overrides: dict[str, str] | None = None,
        metrics_port: int | None = None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._dir = data_dir.resolve()
        self._concurrency = concurrency
        self._overrides = overrides or {}
        self._metrics_port = metrics_port
        self._on_step = on_step
        self._running = ExitStack()
        self.settings: Settings | None = None

    def start(self) -> Path:
        """Start everything, wait until the workers answer, and return the settings file.

        Raises:
            DevServiceError: something does not start; nothing is left running.
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, workers first."""
        self._running.close()

    def __enter__(self) -> Path:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> Path:
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        began = time.monotonic()
        services = DevServices(self._dir / "servers")
        self._running.callback(services.stop)
        urls = services.start()
        self._on_step(f"PostgreSQL and Redis answer after {time.monotonic() - began:.1f} s")
        settings_file = self._write_settings(urls)
        self.settings = load_settings(**self._values(urls))
        app = create_app(self.settings)
        runtime = runtime_of(app)
        runtime.key_folders.generate()
        self._running.callback(runtime.engine.dispose)
        self._on_step(f"keys are there, schema is at revision {upgrade(runtime.engine)}")
        self._spawn("beat", ["--schedule", str(self._dir / "beat-schedule")], self._metrics_address())
        audit = self._spawn("audit", [])
        pipeline = self._spawn("pipeline", ["--concurrency", str(self._concurrency)])
        deadline = time.monotonic() + _READY_S
        expected = {f"{name}@{socket.gethostname()}" for name in ("audit", "pipeline")}
        while not expected <= _answering(app):
            for name, process in (("audit", audit), ("pipeline", pipeline)):
                if not process.is_running:
                    raise DevServiceError(f"{name} worker ended while starting: {process.last_lines()}")
            if time.monotonic() > deadline:
                raise DevServiceError(f"workers do not answer within {_READY_S:g} s; see {self._dir}/*.log")
        self._on_step(f"pipeline worker, audit worker and beat run after {time.monotonic() - began:.1f} s")
        return settings_file

    def _values(self, urls: ServiceUrls) -> dict[str, str]:
        return {
            "environment": "development",
            "redis_url": urls.redis_url,
            "database_url": urls.database_url,
            "artifact_url": (self._dir / "artifacts").as_uri(),
            "upload_dir": str(self._dir / "uploads"),
            "keys_dir": str(self._dir / "keys" / "producer"),
            "reader_keys_dir": str(self._dir / "keys" / "reader"),
            "signing_keys_dir": str(self._dir / "keys" / "signer"),
            "audit_spool_dir": str(self._dir / "spool"),
            "audit_sink_url": (self._dir / "audit-backup").as_uri(),
            **self._overrides,
        }

    def _write_settings(self, urls: ServiceUrls) -> Path:
        path = self._dir / SETTINGS_FILE
        values = {**_users_settings(), **self._values(urls)}
        lines = [setting_line(name, value) for name, value in values.items()]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(lines)
        self._running.callback(path.unlink, missing_ok=True)
        return path

    def _metrics_address(self) -> dict[str, str]:
        """Return the setting for the one process that serves the numbers of all."""
        if self._metrics_port is None:
            return {}
        try:
            require_free(self._metrics_port, "metrics")
        except DevServiceError as taken:
            # The service is worth more than its numbers, and a second one on this machine is no error.
            self._on_step(f"not served: {taken}")
            return {}
        address = f"{LOOPBACK}:{self._metrics_port}"
        self._on_step(f"Prometheus finds the metrics at http://{address}/metrics")
        return {f"{ENV_PREFIX}METRICS_ADDRESS": address}

    def _spawn(self, role: str, arguments: list[str], settings: dict[str, str] | None = None) -> Supervised:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        step = Step(
            argv=(sys.executable, "-m", "techdeck_tasks", "worker", role, *arguments),
            cwd=str(Path.cwd()),
            env={**inherited, f"{ENV_PREFIX}ENV_FILE": str(self._dir / SETTINGS_FILE), **(settings or {})},
        )
        process = Supervised(Order((step,), _STOP_SIGNALS), log=self._dir / f"{role}.log")
        self._running.callback(process.stop)
        return process


def _users_settings() -> dict[str, str]:
    """Return what the environment sets, for the workers and for the commands that are run beside them."""
    # All workers would serve the numbers at one address; the stack gives it to beat.
    names = Settings.model_fields.keys() - {"metrics_address"}
    variables = {name: f"{ENV_PREFIX}{name.upper()}" for name in sorted(names)}
    return {name: os.environ[variable] for name, variable in variables.items() if variable in os.environ}


def setting_line(name: str, value: str) -> str:
    """Return the line of the settings file that gives the field `name` this value."""
    escaped = value.replace("\\", r"\\").replace("'", r"\'")
    return f"{ENV_PREFIX}{name.upper()}='{escaped}'\n"


def _answering(app: Celery) -> set[str]:
    replies = app.control.ping(timeout=0.3)
    return {name for reply in replies for name in reply}
