"""Real servers of each test's own, and real workers, all of them to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gated_stages
import redis

from techdeck_tasks.audit.writing.stream import STREAM, unpack
from techdeck_tasks.devservices import DevServices
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.pipeline import parse_definition
from techdeck_tasks.pipeline.runs.view import RunView
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.migration import upgrade

HERE = Path(__file__).parent

DEADLINE_S = 40.0


@dataclass
class Worker:
    """A worker with its children, in a process group of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Signal the main process and its children."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait(10)


@dataclass
class Place:
    """Servers, keys, workers, and a client of them."""

    folder: Path
    services: DevServices
    runtime: Runtime
    environment: dict[str, str]
    workers: list[Worker] = field(default_factory=list)

    @property
    def redis(self) -> redis.Redis:
        return self.runtime.redis

    def until(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """Return the first true value of `condition`."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.05)
        logs = "\n".join(worker.output()[-1500:] for worker in self.workers)
        raise AssertionError(f"not within {deadline_s:g} s: {what}\n{logs}")

    def start_worker(self, app: str = "gated_worker", *options: str) -> Worker:
        name = f"{app}-{len(self.workers)}"
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", app, "worker", "-n", f"{name}@test"),
                    *("-l", "INFO", "--without-mingle", "--without-gossip"),
                    *(options or ("-Q", "pipeline", "-c", "2")),
                ],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    def ready_worker(self) -> Worker:
        worker = self.start_worker()
        self.until(lambda: " ready." in worker.output(), "worker ready")
        return worker

    def start_run(self, *stages: dict[str, Any], key: str | None = None) -> str:
        definition = parse_definition({"name": "demo", "source": {"url": "x.csv"}, "stages": list(stages)})
        return str(self.runtime.pipeline.start(str(uuid.uuid4()), definition, key)["run_id"])

    def run(self, run_id: str) -> RunView:
        return self.runtime.pipeline.store.get_run(run_id)

    def starts(self, run_id: str) -> list[str]:
        """Return "stage attempt" of each time a body was begun."""
        raw: Any = self.redis.lrange(gated_stages.STARTS, 0, -1)
        words = [item.decode().split() for item in raw]
        return [f"{stage} {attempt}" for run, stage, attempt in words if run == run_id]

    def open_gate(self, name: str) -> None:
        self.redis.set(gated_stages.GO + name, 1)

    def reconcile_until_ended(self, run_id: str) -> RunView:
        def ended() -> RunView | None:
            self.runtime.runs.reconcile()
            view = self.run(run_id)
            return view if view.finished else None

        found: RunView = self.until(ended, "the run has ended")
        return found

    def losses(self, run_id: str) -> list[tuple[int | None, str | None]]:
        """Return (attempt, outcome) of each audited loss of a run's worker, in order."""
        entries: Any = self.redis.xrange(STREAM)
        records = [unpack(payload).record for _, fields in entries for payload in fields.values()]
        return [
            (one.attempt, one.outcome)
            for one in records
            if one.pipeline_id == run_id and one.error_code == "WORKER_LOST"
        ]


class open_place:  # noqa: N801 - used as a function
    """Start everything in `folder`, and end it."""

    def __init__(self, folder: Path, **extra: str) -> None:
        self._folder = folder
        self._extra = extra

    def __enter__(self) -> Place:
        folder = self._folder
        # Ports of their own: a server that was killed comes back where it was.
        self._services = DevServices(folder / "servers", redis_port=free_port(), postgres_port=free_port())
        urls = self._services.start()
        values = {
            "redis_url": urls.redis_url,
            "database_url": urls.database_url,
            "keys_dir": str(folder / "keys"),
            "reader_keys_dir": str(folder / "reader"),
            "signing_keys_dir": str(folder / "signer"),
            "audit_spool_dir": str(folder / "spool"),
            "artifact_url": (folder / "artifacts").as_uri(),
            "stage_lease_seconds": "2",
            "default_max_retries": "1",
            "default_retry_delay_seconds": "0.1",
            "task_time_limit_seconds": "40",
            "task_soft_time_limit_seconds": "39",
            "default_retry_cap_seconds": "5",
            "visibility_timeout_seconds": "3600",
            "connection_reset_delay_seconds": "0",
            **self._extra,
        }
        settings = load_settings(**values)
        generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
        runtime = runtime_of(create_app(settings))
        upgrade(runtime.engine)
        environment = {f"TECHDECK_{name.upper()}": value for name, value in values.items()}
        environment |= {
            "TECHDECK_ENV_FILE": "",
            "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
            "PYTHONWARNINGS": "ignore",
        }
        self._place = Place(folder, self._services, runtime, environment)
        return self._place

    def __exit__(self, *_: object) -> None:
        for worker in self._place.workers:
            worker.kill()
        self._place.runtime.engine.dispose()
        self._services.stop()
