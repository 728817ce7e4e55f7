"""Cancel, resume and the recovery of what was lost, on real PostgreSQL."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from techdeck_tasks.errors import (
    BiasDetectionError,
    PipelineExecutionError,
    ServiceUnavailableError,
    WorkerLostError,
)
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline import parse_definition
from techdeck_tasks.pipeline.models import PipelineRun
from techdeck_tasks.pipeline.runs.control import OverdueStage, RunControl
from techdeck_tasks.pipeline.runs.hold import Hold
from techdeck_tasks.pipeline.runs.state import RunState
from techdeck_tasks.pipeline.runs.store import PipelineStore

LEASE = timedelta(seconds=60)
LOST = WorkerLostError("the worker is gone")


class MovingClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Runs:
    """A store, its control, and the clock of both."""

    def __init__(self, engine: Engine) -> None:
        self.clock = MovingClock()
        self.engine = engine
        self.store = PipelineStore(engine, Cipher(KeySet("k", {"k": bytes(32)})), self.clock, LEASE)
        self.control = RunControl(engine, self.clock, LEASE)

    def new(self, **needs: list[str]) -> str:
        stages = [
            {"name": name, "stage": "dataset_load", "needs": needed, "timeout_seconds": 7}
            for name, needed in (needs or {"load": [], "after": ["load"], "beside": []}).items()
        ]
        definition = {"name": "demo", "source": {"url": "x.csv"}, "priority": "low", "stages": stages}
        run_id, _ = self.store.create_run(str(uuid.uuid4()), parse_definition(definition))
        self.store.mark_ready(run_id)
        return run_id

    def succeed(self, run_id: str, stage: str, attempt: int = 0, task_id: str = "task") -> bool:
        return self.store.succeed_stage(
            run_id, stage, attempt=attempt, task_id=task_id, output=None, report={}, rows=1
        ).accepted

    def states(self, run_id: str) -> dict[str, str]:
        run = self.store.get_run(run_id)
        return {"run": str(run.state)} | {stage.name: str(stage.state) for stage in run.stages}

    def overdue(self, run_id: str) -> dict[str, OverdueStage]:
        return {one.name: one for one in self.control.overdue_stages() if one.run_id == run_id}

    def lose(self, overdue: OverdueStage, next_attempt: int | None, recorded: list[str]) -> Any:
        return self.control.lose_attempt(
            overdue, LOST, next_attempt=next_attempt, record=partial(recorded.append, overdue.name)
        )


@pytest.fixture
def runs(own_database: Engine) -> Runs:
    return Runs(own_database)


# -- cancel ----------------------------------------------------------------------------------------------


def test_a_run_that_waits_is_cancelled_at_once(runs: Runs) -> None:
    run_id = runs.new()
    assert runs.control.cancel_run(run_id) is RunState.CANCELLED
    assert set(runs.states(run_id).values()) == {"cancelled"}
    assert not runs.store.claim_stage(run_id, "load", 0, "task")
    assert runs.control.cancel_run(run_id) is RunState.CANCELLED


def test_what_runs_is_asked_to_stop_and_what_waits_does_not_start(runs: Runs) -> None:
    run_id = runs.new()
    runs.store.claim_stage(run_id, "load", 0, "task")
    assert runs.store.renew_stage(run_id, "load", 0, "task") is Hold.HELD
    assert runs.control.cancel_run(run_id) is RunState.CANCELLING
    assert runs.states(run_id) == {
        "run": "cancelling",
        "load": "running",
        "after": "cancelled",
        "beside": "cancelled",
    }
    assert not runs.store.claim_stage(run_id, "beside", 0, "task")
    assert runs.store.renew_stage(run_id, "load", 0, "task") is Hold.CANCELLING
    assert runs.store.stop_stage(run_id, "load", 0, "task")
    assert set(runs.states(run_id).values()) == {"cancelled"}
    assert runs.store.renew_stage(run_id, "load", 0, "task") is Hold.LOST


def test_what_a_cancelled_run_s_stage_delivers_is_refused(runs: Runs) -> None:
    run_id = runs.new()
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.control.cancel_run(run_id)
    assert not runs.succeed(run_id, "load")
    assert set(runs.states(run_id).values()) == {"cancelled"}


def test_a_retry_in_a_run_that_is_being_cancelled_ends_it(runs: Runs) -> None:
    run_id = runs.new(load=[])
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.control.cancel_run(run_id)
    noted = runs.store.retry_stage(
        run_id,
        "load",
        ServiceUnavailableError("away"),
        attempt=0,
        next_attempt=1,
        task_id="task",
        delay=timedelta(0),
    )
    assert (noted, runs.states(run_id)) == (False, {"run": "cancelled", "load": "cancelled"})


def test_a_run_that_has_ended_cannot_be_cancelled(runs: Runs) -> None:
    run_id = runs.new(load=[])
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.succeed(run_id, "load")
    with pytest.raises(PipelineExecutionError, match="nothing to cancel"):
        runs.control.cancel_run(run_id)


def test_a_stage_that_never_stops_is_cancelled_when_its_worker_is_lost(runs: Runs) -> None:
    run_id, recorded = runs.new(load=[]), list[str]()
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.control.cancel_run(run_id)
    runs.clock.sleep(61)
    assert runs.lose(runs.overdue(run_id)["load"], 1, recorded).run_state is RunState.CANCELLED
    assert recorded == ["load"]


# -- resume ----------------------------------------------------------------------------------------------


def test_a_failed_run_goes_on_from_where_it_failed(runs: Runs) -> None:
    run_id = runs.new()
    for stage in ("load", "beside"):
        runs.store.claim_stage(run_id, stage, 0, stage)
    runs.succeed(run_id, "beside", task_id="beside")
    runs.store.fail_stage(run_id, "load", BiasDetectionError("x"), "load")
    before = runs.store.get_run(run_id).stage("beside")
    ready = runs.control.resume_run(run_id)
    assert [(one.name, one.generation, one.attempt, one.timeout_seconds, one.priority) for one in ready] == [
        ("load", 1, 0, 7, "low")
    ]
    run = runs.store.get_run(run_id)
    assert (run.state, run.error_code, run.finished_at) == ("queued", None, None)
    assert run.stage("beside") == before
    assert not runs.store.claim_stage(run_id, "load", 5, "load", generation=0)
    assert runs.store.claim_stage(run_id, "load", 0, "new", generation=1)
    assert not runs.succeed(run_id, "load", task_id="load")
    assert runs.succeed(run_id, "load", task_id="new")
    assert runs.store.claim_stage(run_id, "after", 0, "after", generation=1)
    assert runs.succeed(run_id, "after", task_id="after")
    assert runs.states(run_id)["run"] == "succeeded"


def test_a_cancelled_run_can_be_resumed(runs: Runs) -> None:
    run_id = runs.new()
    runs.control.cancel_run(run_id)
    assert [stage.name for stage in runs.control.resume_run(run_id)] == ["load", "beside"]
    assert runs.states(run_id) == {"run": "queued", "load": "queued", "after": "pending", "beside": "queued"}


def test_only_a_run_that_failed_or_was_cancelled_can_be_resumed(runs: Runs) -> None:
    run_id = runs.new()
    with pytest.raises(PipelineExecutionError, match="is queued; only a failed or cancelled run"):
        runs.control.resume_run(run_id)


def test_a_run_whose_artifacts_were_given_up_cannot_be_resumed(runs: Runs) -> None:
    old, young, running = runs.new(), runs.new(), runs.new()
    runs.control.cancel_run(old)
    runs.clock.sleep(3600)
    runs.control.cancel_run(young)
    before = runs.clock.now() - timedelta(minutes=30)
    assert runs.control.give_up_artifacts(before) == [old]
    assert runs.control.give_up_artifacts(before) == []
    with pytest.raises(PipelineExecutionError, match="run the pipeline again"):
        runs.control.resume_run(old)
    runs.control.keep_artifacts([old])
    assert runs.control.resume_run(old)
    assert runs.states(running)["run"] == "queued"


# -- losses ----------------------------------------------------------------------------------------------


def test_a_stage_that_is_heard_of_in_time_is_not_overdue(runs: Runs) -> None:
    run_id = runs.new(load=[])
    runs.clock.sleep(50)
    assert runs.overdue(run_id) == {}
    runs.store.claim_stage(run_id, "load", 0, "task")
    for _ in range(5):
        runs.clock.sleep(50)
        assert runs.store.renew_stage(run_id, "load", 0, "task") is Hold.HELD
    assert runs.overdue(run_id) == {}


def test_a_lost_message_is_sent_again_and_each_time_waited_for_twice_as_long(runs: Runs) -> None:
    run_id = runs.new(load=[])
    for waited in (60, 120, 240):
        runs.clock.sleep(waited - 1)
        assert runs.overdue(run_id) == {}
        runs.clock.sleep(2)
        overdue = runs.overdue(run_id)["load"]
        assert [one.name for one in runs.control.resend_stage(overdue)] == ["load"]
        assert runs.control.resend_stage(overdue) == []
    assert runs.store.claim_stage(run_id, "load", 0, "task")


def test_a_stage_that_waits_for_a_breaker_is_not_taken_for_lost(runs: Runs) -> None:
    run_id = runs.new(load=[])
    runs.store.await_stage(run_id, "load", 0, timedelta(seconds=300))
    runs.store.await_stage(run_id, "load", 7, timedelta(seconds=9000))
    runs.clock.sleep(359)
    assert runs.overdue(run_id) == {}
    runs.clock.sleep(2)
    assert [one.name for one in runs.control.resend_stage(runs.overdue(run_id)["load"])] == ["load"]
    assert runs.store.claim_stage(run_id, "load", 0, "task")
    runs.store.await_stage(run_id, "load", 0, timedelta(seconds=9000))
    runs.clock.sleep(61)
    assert "load" in runs.overdue(run_id)


def test_a_lost_retry_is_sent_again_as_the_same_attempt(runs: Runs) -> None:
    run_id = runs.new(load=[])
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.store.retry_stage(
        run_id,
        "load",
        ServiceUnavailableError("away"),
        attempt=0,
        next_attempt=1,
        task_id="task",
        delay=timedelta(seconds=100),
    )
    runs.clock.sleep(159)
    assert runs.overdue(run_id) == {}
    runs.clock.sleep(2)
    (ready,) = runs.control.resend_stage(runs.overdue(run_id)["load"])
    assert (ready.attempt, runs.states(run_id)["load"]) == (1, "queued")
    assert not runs.store.claim_stage(run_id, "load", 0, "task")
    assert runs.store.claim_stage(run_id, "load", 1, "another task")
    assert not runs.store.claim_stage(run_id, "load", 1, "task")


def test_a_lost_attempt_is_recorded_once_and_followed_by_the_next(runs: Runs) -> None:
    run_id, recorded = runs.new(load=[]), list[str]()
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.clock.sleep(61)
    overdue = runs.overdue(run_id)["load"]
    assert runs.lose(overdue, 1, recorded).accepted
    assert not runs.lose(overdue, 1, recorded).accepted
    assert recorded == ["load"]
    assert runs.store.renew_stage(run_id, "load", 0, "task") is Hold.LOST
    assert not runs.succeed(run_id, "load", attempt=0)
    assert not runs.store.claim_stage(run_id, "load", 0, "task")
    assert runs.store.claim_stage(run_id, "load", 1, "another task")
    assert runs.succeed(run_id, "load", attempt=1, task_id="another task")


def test_an_attempt_that_is_heard_of_after_it_was_found_overdue_is_not_lost(runs: Runs) -> None:
    run_id, recorded = runs.new(load=[]), list[str]()
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.clock.sleep(61)
    overdue = runs.overdue(run_id)["load"]
    runs.store.renew_stage(run_id, "load", 0, "task")
    assert not runs.lose(overdue, 1, recorded).accepted
    assert recorded == []


def test_the_last_lost_attempt_fails_its_stage_and_run(runs: Runs) -> None:
    run_id, recorded = runs.new(load=[], after=["load"]), list[str]()
    runs.store.claim_stage(run_id, "load", 3, "task")
    runs.clock.sleep(61)
    runs.lose(runs.overdue(run_id)["load"], None, recorded)
    assert runs.states(run_id) == {"run": "failed", "load": "failed", "after": "skipped"}
    assert runs.store.get_run(run_id).error_code == "WORKER_LOST"


def test_a_loss_that_cannot_be_recorded_changes_nothing(runs: Runs) -> None:
    run_id = runs.new(load=[])
    runs.store.claim_stage(run_id, "load", 0, "task")
    runs.clock.sleep(61)
    overdue = runs.overdue(run_id)["load"]

    def refuse() -> None:
        raise ServiceUnavailableError("the audit is away")

    with pytest.raises(ServiceUnavailableError):
        runs.control.lose_attempt(overdue, LOST, next_attempt=1, record=refuse)
    assert runs.overdue(run_id)["load"] == overdue
    assert overdue.event_id == runs.overdue(run_id)["load"].event_id


def test_the_timeout_and_priority_of_a_definition_are_kept_in_the_clear(runs: Runs, tmp_path: Path) -> None:
    run_id = runs.new(load=[])
    (ready,) = runs.store.queued_stages(run_id)
    assert (ready.timeout_seconds, ready.priority) == (7, "low")
    with runs.engine.begin() as connection:
        assert connection.scalar(select(PipelineRun.priority)) == "low"
