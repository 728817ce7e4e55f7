"""The audit worker's scheduled tasks, as beat names them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import STREAM, pack
from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.runtime import create_app, runtime_of
from techdeck_tasks.settings import Settings
from techdeck_tasks.tasks import upkeep


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    schedule = {"compliance_report_schedule": frozenset({"daily", "monthly"})}
    app = create_app(settings.model_copy(update=schedule), Role.AUDIT)
    begin_slots(app)
    yield app
    runtime_of(app).engine.dispose()


def begin_slots(app: Celery) -> None:
    """Let as much time pass as lies between two messages of beat."""
    runtime_of(app).redis.delete(*(f"td:upkeep-turn:{name}" for name in upkeep.PERIODS))


def test_every_task_of_the_audits_schedule_is_one_that_its_worker_has(app: Celery) -> None:
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    audits = {name for name in scheduled if name.startswith(("techdeck.audit.", "techdeck.alerts."))}
    assert audits <= set(app.tasks)
    assert audits == {*upkeep.PERIODS, upkeep.ALERTS}
    entries = {entry["task"]: entry["schedule"] for entry in app.conf.beat_schedule.values()}
    assert {name: entries[name] for name in upkeep.PERIODS} == dict(upkeep.PERIODS)


@pytest.mark.parametrize("name", [upkeep.REPORTS, upkeep.INCIDENTS, upkeep.BREAKERS, upkeep.VERIFY])
def test_the_message_of_a_second_beat_does_nothing(app: Celery, name: str) -> None:
    assert app.tasks[name]() is not None
    assert app.tasks[name]() is None
    begin_slots(app)
    assert app.tasks[name]() is not None


def test_reports_of_the_kinds_that_are_asked_for_are_made_once_for_each_slot(app: Celery) -> None:
    for _ in range(2):
        begin_slots(app)
        app.tasks["techdeck.audit.reports"]()
    made = runtime_of(app).reports.search(limit=1000)
    slots = Counter((report.kind, report.period_start) for report in made if report.kind != "on_demand")
    assert Counter(kind for kind, _ in slots) == {"daily": 1, "monthly": 1}
    assert set(slots.values()) == {1}
    assert {report.generated_by for report in made if report.kind != "on_demand"} == {"schedule"}


def test_new_incidents_are_entered_by_their_task(app: Celery) -> None:
    app.tasks["techdeck.audit.incidents"]()
    begin_slots(app)
    assert app.tasks["techdeck.audit.incidents"]() == 0


def test_alerts_are_evaluated_by_their_task_once_a_slot(app: Celery) -> None:
    store = runtime_of(app).alerts
    app.tasks["techdeck.alerts.evaluate"]()
    held = {alert.key: alert.held for alert in store.search()}
    app.tasks["techdeck.alerts.evaluate"]()
    assert {alert.key: alert.held for alert in store.search()} == held
    assert store.watched_since() is not None


def test_upkeep_sends_what_a_dead_process_left_in_the_spool(
    app: Celery, sealer: Sealer, client: redis.Redis, new_event: Callable[..., AuditEvent]
) -> None:
    payload = pack(sealer.seal(new_event()))
    folder = runtime_of(app).settings.audit_spool_dir
    dying = get_context("spawn").Process(target=_spool_and_die, args=(folder, payload))
    dying.start()
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    app.tasks["techdeck.audit.upkeep"]()
    entries: Any = client.xrange(STREAM)
    assert payload in [fields[b"e"] for _, fields in entries]
    assert runtime_of(app).spool.is_empty()


def _spool_and_die(folder: Path, payload: bytes) -> None:
    Spool(folder).append(payload)
    os.kill(os.getpid(), signal.SIGKILL)
