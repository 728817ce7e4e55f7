"""Real worker processes on a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import sample_app
from celery import Celery

from techdeck_tasks.audit.sealing import Opener, SealedEvent
from techdeck_tasks.audit.writing.stream import STREAM, unpack
from techdeck_tasks.keyring import AUDIT_PRIVATE_KEYS, KeySet, generate_keys
from techdeck_tasks.runtime import runtime_of

HERE = Path(__file__).parent

DATABASE_NUMBER = 7
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of `condition`."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


@dataclass
class WorkerProcess:
    """A worker and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> None:
        wait_until(self._ready, f"worker ready; its log: {self.log}")

    def _ready(self) -> bool:
        assert self.process.poll() is None, f"the worker ended: {self.output()[-3000:]}"
        return " ready." in self.output()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End it surely, children included."""
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@dataclass
class Site:
    """A Redis, keys, and the environment that names both."""

    url: str
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    workers: list[WorkerProcess] = field(default_factory=list)
    server: Any = None

    def __post_init__(self) -> None:
        if not self.keys_dir.exists():
            generate_keys(self.keys_dir, self.folder / "reader", self.folder / "signer")

    @property
    def keys_dir(self) -> Path:
        return self.folder / "producer"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TECHDECK_REDIS_URL": self.url,
            "TECHDECK_KEYS_DIR": str(self.keys_dir),
            "TECHDECK_READER_KEYS_DIR": str(self.folder / "reader"),
            "TECHDECK_SIGNING_KEYS_DIR": str(self.folder / "signer"),
            "TECHDECK_AUDIT_SPOOL_DIR": str(self.folder / "spool"),
            "TECHDECK_ENV_FILE": "",
            "TECHDECK_TASK_TIME_LIMIT_SECONDS": "40",
            "TECHDECK_TASK_SOFT_TIME_LIMIT_SECONDS": "39",
            "TECHDECK_VISIBILITY_TIMEOUT_SECONDS": "45",
            "TECHDECK_DEFAULT_RETRY_DELAY_SECONDS": "0.1",
            "TECHDECK_DEFAULT_RETRY_CAP_SECONDS": "1",
            "TECHDECK_DEFAULT_RETRY_BUDGET_SECONDS": "30",
            "TECHDECK_SOFT_SHUTDOWN_TIMEOUT_SECONDS": "0.5",
            "TECHDECK_CONNECTION_RESET_DELAY_SECONDS": "0",
            **self.extra,
        }

    def start_worker(
        self, name: str = "one", concurrency: int = 2, *options: str, app: str = "sample_worker"
    ) -> WorkerProcess:
        return self.start(
            name,
            *("-A", app, "worker", "-c", str(concurrency), "-n", f"{name}@test", "-l", "INFO"),
            *("--without-mingle", "--without-gossip", *options),
        )

    def start(self, name: str, *arguments: str) -> WorkerProcess:
        """Start one of Celery's programs."""
        log = self.folder / f"worker-{name}-{len(self.workers)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments],
                cwd=self.folder,
                env={
                    **os.environ,
                    **self.environment,
                    # Beside what the tests themselves were given to import.
                    "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
                    "REMAP_SIGTERM": "SIGQUIT",
                    "PYTHONWARNINGS": "ignore",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        worker = WorkerProcess(process, log)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


@dataclass
class Sample:
    """The application as a client process has it, and what it can see."""

    app: Celery
    site: Site

    @property
    def redis(self) -> redis.Redis:
        return runtime_of(self.app).redis

    def task(self, name: str) -> Any:
        return self.app.tasks[f"sample.{name}"]

    def run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.task(name).delay(*args, **kwargs).get(timeout=DEADLINE_S)

    def failure(self, name: str, *args: Any, **kwargs: Any) -> tuple[str, BaseException]:
        result = self.task(name).delay(*args, **kwargs)
        return result.id, self.failure_of(result)

    def failure_of(self, result: Any) -> BaseException:
        error = result.get(timeout=DEADLINE_S, propagate=False)
        assert isinstance(error, BaseException), error
        return error

    def audited(self, task_id: str) -> list[tuple[int | None, str | None, str | None]]:
        """Return (attempt, outcome, error code) of each audit event of a task, in order."""
        records = [event.record for event in self._events(task_id)]
        return [(record.attempt, record.outcome, record.error_code) for record in records]

    def documents(self, task_id: str) -> list[dict[str, Any]]:
        """Return what only a reader of the audit sees of a task, in order."""
        opener = Opener(KeySet.load(self.site.folder / "reader" / AUDIT_PRIVATE_KEYS))
        return [opener.open(event.record, event.data_key) for event in self._events(task_id)]

    def _events(self, task_id: str) -> list[SealedEvent]:
        entries: Any = self.redis.xrange(STREAM)
        events = [unpack(payload) for _, fields in entries for payload in fields.values()]
        return [event for event in events if event.record.task_id == task_id]

    def events(self, operation: str) -> list[tuple[str, dict[str, Any]]]:
        raw: Any = self.redis.lrange(sample_app.EVENTS, 0, -1)
        events = [json.loads(item) for item in raw]
        return [(kind, facts) for kind, facts in events if facts["operation"] == f"sample.{operation}"]

    def hooks(self, task_id: str) -> list[str]:
        raw: Any = self.redis.lrange(f"{sample_app.HOOKS}:{task_id}", 0, -1)
        return [item.decode() for item in raw]


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make_sample(site: Site) -> Sample:
    with environment(site.environment):
        return Sample(sample_app.make_app(), site)
