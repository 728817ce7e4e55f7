"""Schedules and beat's tasks, on real PostgreSQL and Redis."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from celery import Celery

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline import parse_definition
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.pipeline.schedules import Schedules
from techdeck_tasks.pipeline.upkeep import COLLECT, RECONCILE, START_DUE, register
from techdeck_tasks.runtime import Runtime

BEGIN = datetime(2026, 3, 1, 5, 7, tzinfo=UTC)


class SetClock:
    def __init__(self) -> None:
        self.time = BEGIN

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing here waits, not even {seconds} s")


class Unsent:
    def send(self, run_id: str, stage: ReadyStage) -> None:
        """Take it."""


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def schedules(runtime: Runtime, clock: SetClock) -> Schedules:
    engine = PipelineEngine(runtime.pipeline_store, runtime.artifacts, Unsent(), clock)
    return Schedules(runtime.engine, runtime.cipher, clock, engine)


@pytest.fixture
def hourly(schedules: Schedules) -> Any:
    name = f"hourly-{uuid.uuid4().hex[:8]}"
    stages = [{"name": "load", "stage": "dataset_load"}]
    schedules.add(
        parse_definition(
            {"name": name, "source": {"url": "x.csv"}, "schedule": "0 * * * *", "stages": stages}
        )
    )
    yield name
    schedules.remove(name)


def test_each_slot_is_started_once(
    schedules: Schedules, hourly: str, clock: SetClock, runtime: Runtime
) -> None:
    assert schedules.start_due() == []
    clock.time = BEGIN.replace(hour=6, minute=0, second=3)
    (run_id,) = schedules.start_due()
    assert schedules.start_due() == []
    run = runtime.pipeline_store.get_run(run_id)
    assert (run.name, run.state) == (hourly, "queued")
    assert run.idempotency_key == f"schedule:{hourly}:2026-03-01T06:00:00+00:00"


def test_a_slot_whose_start_was_not_noted_leads_to_the_run_that_is_there(
    schedules: Schedules, hourly: str, clock: SetClock
) -> None:
    clock.time = BEGIN.replace(hour=6)
    (schedule,) = [one for one in schedules.list_schedules() if one.name == hourly]
    assert len({schedules._start(schedule, clock.time.replace(minute=0)) for _ in range(2)}) == 1


def test_of_the_slots_that_passed_unasked_the_latest_is_started(
    schedules: Schedules, hourly: str, clock: SetClock, runtime: Runtime
) -> None:
    clock.time = BEGIN.replace(hour=11)
    (run_id,) = schedules.start_due()
    assert str(runtime.pipeline_store.get_run(run_id).idempotency_key).endswith("T11:00:00+00:00")


def test_a_definition_without_a_schedule_is_refused(schedules: Schedules) -> None:
    stages = [{"name": "load", "stage": "dataset_load"}]
    with pytest.raises(ValidationError, match="has no schedule"):
        schedules.add(parse_definition({"name": "x", "source": {"url": "x.csv"}, "stages": stages}))


def test_the_tasks_of_two_beats_run_once_a_slot(redis_client: Any, clock: SetClock) -> None:
    app = Celery("two-beats", set_as_current=False)
    done: list[str] = []

    def noting(name: str) -> Callable[[], object]:
        return lambda: done.append(name)

    register(
        app,
        redis=lambda: redis_client,
        clock=clock,
        reconcile=noting("reconcile"),
        start_due=noting("start_due"),
        collect=noting("collect"),
    )
    for _ in range(2):
        for name in (RECONCILE, START_DUE, COLLECT):
            app.tasks[name]()
    assert sorted(done) == ["collect", "reconcile", "start_due"]


def test_artifacts_of_runs_that_ended_long_ago_are_removed(runtime: Runtime) -> None:
    stages = [{"name": "load", "stage": "dataset_load"}]
    definition = parse_definition({"name": "x", "source": {"url": "x.csv"}, "stages": stages})
    run_id, _ = runtime.pipeline_store.create_run(str(uuid.uuid4()), definition)

    ref = runtime.artifacts.write(pl.DataFrame({"a": [1]}), run_id, "load", 0)
    runtime.runs.cancel(run_id, owner="ada", reason="test")
    runtime.runs.collect()
    assert runtime.artifacts.exists(ref)
    runtime.runs._artifact_retention *= 0
    assert runtime.runs.collect() >= 1
    assert not runtime.artifacts.exists(ref)
    assert runtime.pipeline_store.get_run(run_id).artifacts_removed_at is not None
