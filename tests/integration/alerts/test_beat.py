"""What a real beat and a real audit worker find out by themselves, from what is wrong to the alert."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from techdeck_tasks.errors import AuthenticationError
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import ENV_PREFIX, Settings

PATIENCE_S = 120
"""Alerts are judged at most each 45 s: what the first judgement missed, the second one finds."""

TOLD = (
    "redis_url",
    "database_url",
    "keys_dir",
    "reader_keys_dir",
    "signing_keys_dir",
    "audit_spool_dir",
    "artifact_url",
)

# Beat itself, only sooner: a day and a minute are too long for a test.
HASTY_BEAT = """
from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app
app = create_app(role=Role.BEAT)
for name, entry in app.conf.beat_schedule.items():
    entry["schedule"] = 8 if name == "alerts" else 2
app.Beat(schedule="schedule").run()
"""


@pytest.fixture
def settings(settings: Settings, own_database: Engine) -> Settings:
    """Settings of a service with a database of its own."""
    own = SecretStr(own_database.url.render_as_string(hide_password=False))
    return settings.model_copy(update={"database_url": own})


@contextmanager
def process(settings: Settings, folder: Path, *arguments: str) -> Iterator[None]:
    told = {name: getattr(settings, name) for name in TOLD}
    environment = {
        f"{ENV_PREFIX}{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in told.items()
    }
    running = subprocess.Popen(
        (sys.executable, *arguments),
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert running.poll() is None, f"{arguments} ended by itself"
        os.killpg(running.pid, signal.SIGKILL)
        running.wait(10)


def until(found: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.1)


def alert_types(runtime: Runtime) -> set[str]:
    return {alert.alert_type for alert in runtime.alerts.search()}


def test_a_tampered_log_an_incident_and_unreadable_events_are_told_of(
    settings: Settings, tmp_path: Path
) -> None:
    runtime = runtime_of(create_app(settings))
    runtime.redis.flushall()
    runtime.keep_audit_up()
    with process(settings, tmp_path, "-m", "techdeck_tasks", "worker", "audit"):
        for number in range(3):
            error = AuthenticationError(f"a wrong password, the {number}. time")
            runtime.handler.handle(error, {"service": "portal", "operation": "login"})
        until(lambda: runtime.audit_reader("test").search(), "the audit worker writes")
        with runtime.engine.begin() as connection:
            # As a superuser may.
            connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER ALL"))
            connection.execute(text("UPDATE audit_event SET service = 'elsewhere' WHERE service = 'portal'"))
        runtime.redis.xadd("td:audit", {"e": b"no event"})
        with process(settings, tmp_path, "-c", HASTY_BEAT):
            wanted = {"audit_verify_failed", "security_incident", "audit_quarantine", "hipaa_violation"}
            until(lambda: wanted <= alert_types(runtime), "every condition fires")
            assert "unknown" not in alert_types(runtime)
            last = runtime.last_verification()
            assert last is not None
            assert not last.ok
            assert {one.error_code for one in runtime.incidents.unnotified()} >= {"AUTH_ERROR"}
            assert runtime.audit_backlog().quarantined_entries == 1
    runtime.engine.dispose()
