"""The API and the dashboard behind a real server, on servers and a database of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from techdeck_tasks.audit.incidents.incident import Incident
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ConnectionFailedError, ServiceUnavailableError
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.pipeline.definition import parse_definition
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings, load_settings
from techdeck_tasks.tasks.letters import Letter, LetterKind
from techdeck_tasks.web.app import create_web_app
from techdeck_tasks.web.server import make_server
from techdeck_tasks.web.tokens import Role, TokenStore

Databases = Callable[[], AbstractContextManager[Engine]]

DEFINITION = {
    "name": "patients",
    "source": {"url": "/data/patients.csv"},
    "stages": [
        {"name": "load", "stage": "dataset_load"},
        {
            "name": "bias",
            "stage": "bias_detection",
            "needs": ["load"],
            "params": {"outcome": "a", "sensitive": ["b"]},
        },
    ],
}


@dataclass(frozen=True)
class Site:
    """A served application with a token for each role, and what it works on."""

    runtime: Runtime
    url: str
    secrets: dict[str, str]

    @property
    def tokens(self) -> TokenStore:
        return TokenStore(self.runtime.engine, self.runtime.clock)

    def client(self, who: str | None = None, **options: Any) -> httpx.Client:
        """Return a client that shows the token of `who`."""
        headers = {"Authorization": f"Bearer {self.secrets[who]}"} if who else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **options)

    def audited(self, operation: str, error_id: str | None = None) -> list[dict[str, Any]]:
        """Return the documents on record of an operation, or of one error in it, once there is one."""
        deadline = time.monotonic() + 20
        while True:
            entries = self.runtime.audit_reader("test").search()
            found = [
                entry
                for entry in entries
                if entry.record.operation == operation and error_id in (None, entry.record.error_id)
            ]
            if found:
                return [dict(entry.document or {}) for entry in found]
            assert time.monotonic() < deadline, f"{operation} is not on record"

    def incident(self) -> Incident:
        """Return the newest security incident, once there is one."""
        deadline = time.monotonic() + 20
        while not (found := self.runtime.incidents.search(limit=1)):
            assert time.monotonic() < deadline, "no incident is on record"
            self.runtime.incidents.catch_up()
        return found[0]


@pytest.fixture(scope="module")
def site_settings(
    services: Any, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("site")
    with databases() as engine:
        settings = load_settings(
            redis_url=services.redis_url,
            redis_timeout_seconds=2,
            database_url=engine.url.render_as_string(hide_password=False),
            keys_dir=folder / "keys" / "producer",
            reader_keys_dir=folder / "keys" / "reader",
            signing_keys_dir=folder / "keys" / "signer",
            audit_spool_dir=folder / "spool",
            artifact_url=(folder / "artifacts").as_uri(),
            upload_dir=folder / "uploads",
            upload_max_bytes=30_000_000,
            upload_max_open=40,
            web_requests_per_minute=100_000,
            web_timeout_seconds=2,
        )
        generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
        yield settings


@pytest.fixture(scope="module")
def site(site_settings: Settings) -> Iterator[Site]:
    """The application, with an audit drain beside it as an audit worker would run."""
    runtime = runtime_of(create_app(site_settings))
    runtime.redis.flushall()
    runtime.keep_audit_up()
    drain = runtime.audit_drain("audit@web")
    drain.start()
    store = TokenStore(runtime.engine, runtime.clock)
    roles = {"everybody": list(Role), **{str(role): [role] for role in Role}}
    secrets = {
        name: store.create(name, granted, timedelta(hours=1), "test")[1] for name, granted in roles.items()
    }
    with serving(create_web_app(runtime)) as url:
        yield Site(runtime, url, secrets)
    drain.stop()
    runtime.engine.dispose()


@pytest.fixture(scope="module")
def serve() -> Callable[[FastAPI], AbstractContextManager[str]]:
    """Serves an application of the test's own and tells its address."""
    return serving


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    server = make_server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline, "the server did not start"
        threading.Event().wait(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def new_letter(site: Site) -> Callable[..., Letter]:
    """Keeps a task that failed for good, or one that waits for a person."""

    def new(kind: LetterKind = LetterKind.DEAD, **facts: Any) -> Letter:
        given = {
            "task_name": "lab.fetch",
            "task_id": "t-1",
            "signature": {"task": "lab.fetch", "args": ["secret-argument"], "kwargs": {}, "options": {}},
            "service": "lab",
            "attempts": 4,
            "failed_at": SystemClock().now(),
        }
        letter = Letter.of(ConnectionFailedError("the lab is away"), kind=kind, **(given | facts))
        store = site.runtime.dead_letters if kind is LetterKind.DEAD else site.runtime.interventions
        store.add(letter)
        return letter

    return new


@pytest.fixture
def new_run(site: Site) -> Callable[..., str]:
    """Starts a run whose first stage is half done."""

    def new(run_id: str, *, fails: bool = False) -> str:
        store = site.runtime.pipeline_store
        store.create_run(run_id, parse_definition(DEFINITION))
        store.mark_ready(run_id)
        store.claim_stage(run_id, "load", 0, "task")
        store.progress(run_id, "load", 60_000, 100_000)
        if fails:
            store.fail_stage(run_id, "load", ServiceUnavailableError("the file server is away"), "task")
        return run_id

    return new


@pytest.fixture
def trip(site: Site) -> Callable[[str], None]:
    """Lets a breaker open."""

    def trip(name: str) -> None:
        breaker = site.runtime.breakers.get(name)
        for _ in range(breaker.get_threshold()):
            breaker.record_failure()
        assert breaker.get_status()["state"] == "open"

    return trip


@pytest.fixture
def evaluate(site: Site) -> Callable[[], None]:
    """Judges the whole service now, as an audit worker does each minute."""

    def evaluate() -> None:
        site.runtime.alert_evaluator.evaluate(timedelta(0))

    return evaluate


@pytest.fixture
def fail(site: Site) -> Callable[..., str]:
    """Handles an error as a task would; returns its id."""

    def fail(error: Exception, service: str = "dataset_load") -> str:
        handled = site.runtime.handler.handle(error, {"service": service, "operation": "load"})
        return str(handled.response["error_id"])

    return fail
