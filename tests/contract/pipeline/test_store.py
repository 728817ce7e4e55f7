"""PipelineStore on real PostgreSQL, and on the database in memory of `techdeck_tasks.testing`."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, Uuid, bindparam, create_engine, delete, select, text, update
from sqlalchemy.exc import IntegrityError

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import (
    BiasDetectionError,
    EncryptionError,
    PipelineExecutionError,
    ServiceUnavailableError,
    ValidationError,
)
from techdeck_tasks.pipeline import PipelineDefinition, parse_definition
from techdeck_tasks.pipeline.models import PipelineRun, StageRun
from techdeck_tasks.pipeline.runs.hold import Claimed
from techdeck_tasks.pipeline.runs.state import RunState, StageState
from techdeck_tasks.pipeline.runs.statements import ReadyStage, Settled
from techdeck_tasks.pipeline.runs.store import PipelineStore
from techdeck_tasks.runtime import Runtime

T = TypeVar("T")

DIAMOND = {"load": [], "left": ["load"], "right": ["load"], "join": ["left", "right"]}


class ReversingCipher:
    """Bound to its AAD like the real one, and as unreadable to a search for plain text."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        return (aad + b"\0" + plaintext)[::-1]

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        bound, _, plaintext = sealed[::-1].partition(aad + b"\0")
        if bound:
            raise EncryptionError("the sealed bytes belong elsewhere")
        return plaintext


@pytest.fixture
def store(engine: Engine) -> PipelineStore:
    return PipelineStore(engine, ReversingCipher(), SystemClock())


def definition(needs: dict[str, list[str]] | None = None, name: str = "demo") -> PipelineDefinition:
    stages = [
        {
            "name": stage,
            "stage": "bias_detection",
            "needs": needed,
            "params": {"outcome": "y", "sensitive": ["sex"]},
        }
        for stage, needed in (needs or DIAMOND).items()
    ]
    return parse_definition({"name": name, "source": {"url": "patients-of-ward-7.csv"}, "stages": stages})


def new_run(store: PipelineStore, needs: dict[str, list[str]] | None = None) -> str:
    run_id, created = store.create_run(str(uuid.uuid4()), definition(needs))
    assert created
    store.mark_ready(run_id)
    return run_id


def succeed(
    store: PipelineStore, run_id: str, stage: str, attempt: int = 0, task_id: str = "task"
) -> Settled:
    return store.succeed_stage(
        run_id, stage, attempt=attempt, task_id=task_id, output={"url": "x"}, report={"rows": 3}, rows=3
    )


def at_once(calls: list[Callable[[], T]]) -> list[T]:
    """Run the calls in threads that start together."""
    barrier = threading.Barrier(len(calls), timeout=10)

    def run(call: Callable[[], T]) -> T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=30) for future in [pool.submit(run, call) for call in calls]]


def states(store: PipelineStore, run_id: str) -> dict[str, str]:
    return {stage.name: str(stage.state) for stage in store.get_run(run_id).stages}


# -- creating ------------------------------------------------------------------------------------------


def test_a_new_run_is_queued_with_its_stages_pending_in_the_order_of_the_definition(
    store: PipelineStore,
) -> None:
    run_id, _ = store.create_run(str(uuid.uuid4()), definition())
    run = store.get_run(run_id)
    assert (run.state, run.name, run.started_at, run.finished_at) == (RunState.QUEUED, "demo", None, None)
    assert [(stage.name, stage.needs, stage.state, stage.attempt) for stage in run.stages] == [
        ("load", (), "pending", 0),
        ("left", ("load",), "pending", 0),
        ("right", ("load",), "pending", 0),
        ("join", ("left", "right"), "pending", 0),
    ]


def test_creating_a_run_twice_makes_one(store: PipelineStore) -> None:
    run_id = str(uuid.uuid4())
    assert store.create_run(run_id, definition()) == (run_id, True)
    assert store.create_run(run_id, definition()) == (run_id, False)


def test_an_idempotency_key_leads_to_its_first_run(store: PipelineStore) -> None:
    key = uuid.uuid4().hex
    first, _ = store.create_run(str(uuid.uuid4()), definition(), key)
    assert store.create_run(str(uuid.uuid4()), definition(), key) == (first, False)


def test_an_idempotency_key_used_by_two_at_once_makes_one_run(store: PipelineStore) -> None:
    key = uuid.uuid4().hex
    results = at_once([lambda: store.create_run(str(uuid.uuid4()), definition(), key) for _ in range(6)])
    assert len({run_id for run_id, _ in results}) == 1
    assert sum(created for _, created in results) == 1


def test_an_idempotency_key_of_another_definition_is_refused(store: PipelineStore) -> None:
    key = uuid.uuid4().hex
    store.create_run(str(uuid.uuid4()), definition(), key)
    with pytest.raises(ValidationError, match="another definition"):
        store.create_run(str(uuid.uuid4()), definition(name="other"), key)


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_an_idempotency_key_has_bounds(store: PipelineStore, key: str) -> None:
    with pytest.raises(ValidationError, match="1 to 200"):
        store.create_run(str(uuid.uuid4()), definition(), key)


def test_a_run_id_must_be_a_uuid(store: PipelineStore) -> None:
    with pytest.raises(ValidationError, match="UUID"):
        store.create_run("run-1", definition())


def test_the_definition_is_stored_sealed_and_bound_to_its_run(store: PipelineStore, engine: Engine) -> None:
    first, second = new_run(store), new_run(store)
    with engine.begin() as connection:
        sealed = connection.scalar(
            select(PipelineRun.definition).where(PipelineRun.run_id == uuid.UUID(first))
        )
        assert sealed is not None
        assert b"ward-7" not in sealed
        connection.execute(
            update(PipelineRun).where(PipelineRun.run_id == uuid.UUID(second)).values(definition=sealed)
        )
    assert store.get_definition(first) == definition()
    with pytest.raises(EncryptionError):
        store.get_definition(second)


def test_an_unknown_run_is_named_in_the_error(store: PipelineStore) -> None:
    run_id = str(uuid.uuid4())
    for call in (store.get_run, store.get_definition, store.mark_ready):
        with pytest.raises(PipelineExecutionError, match=run_id):
            call(run_id)
    with pytest.raises(PipelineExecutionError, match=run_id):
        store.claim_stage(run_id, "load", 0, "task")


# -- claiming ------------------------------------------------------------------------------------------


def test_claiming_starts_the_stage_and_the_run(store: PipelineStore) -> None:
    run_id = new_run(store)
    assert store.claim_stage(run_id, "load", 0, "task")
    run = store.get_run(run_id)
    assert (run.state, run.stage("load").state, run.stage("load").task_id) == ("running", "running", "task")
    assert run.started_at is not None
    assert run.started_at.utcoffset() == timedelta(0)


def test_a_message_delivered_twice_is_claimed_once(store: PipelineStore) -> None:
    run_id = new_run(store)
    assert store.claim_stage(run_id, "load", 0, "task")
    assert not store.claim_stage(run_id, "load", 0, "task")
    assert not store.claim_stage(run_id, "load", 0, "another task")


def test_of_many_claimers_at_once_one_wins(store: PipelineStore) -> None:
    run_id = new_run(store)
    results = at_once([partial(store.claim_stage, run_id, "load", 0, f"task-{n}") for n in range(8)])
    assert [claimed for claimed in results if claimed is not None] == [Claimed(part=None)]


def test_a_pending_stage_cannot_be_claimed(store: PipelineStore) -> None:
    run_id = new_run(store)
    assert not store.claim_stage(run_id, "join", 0, "task")


def test_a_later_attempt_takes_over_from_a_process_that_died(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    assert not store.claim_stage(run_id, "load", 1, "another task")
    assert store.claim_stage(run_id, "load", 1, "task")
    assert not succeed(store, run_id, "load", attempt=0).accepted
    assert succeed(store, run_id, "load", attempt=1).accepted


# -- retrying ------------------------------------------------------------------------------------------


def retry(store: PipelineStore, run_id: str, **changes: Any) -> bool:
    given: dict[str, Any] = {
        "attempt": 0,
        "next_attempt": 1,
        "task_id": "task",
        "delay": timedelta(seconds=30),
    }
    return store.retry_stage(
        run_id, "load", ServiceUnavailableError("the laboratory is away"), **given | changes
    )


def test_a_retry_is_noted_with_its_error_and_its_moment(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    assert retry(store, run_id)
    stage = store.get_run(run_id).stage("load")
    assert (stage.state, stage.attempt, stage.error_code) == ("retrying", 1, "SERVICE_UNAVAILABLE")
    assert stage.error_message == "the laboratory is away"
    assert stage.retry_at is not None
    assert timedelta(0) < stage.retry_at - datetime.now(UTC) <= timedelta(seconds=30)


def test_only_the_retry_itself_claims_a_retrying_stage(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    retry(store, run_id)
    assert not store.claim_stage(run_id, "load", 0, "task")
    assert not store.claim_stage(run_id, "load", 1, "another task")
    assert store.claim_stage(run_id, "load", 1, "task")
    stage = store.get_run(run_id).stage("load")
    assert (stage.state, stage.retry_at, stage.error_code) == ("running", None, "SERVICE_UNAVAILABLE")


def test_waiting_for_a_breaker_spends_no_attempt(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    assert retry(store, run_id, next_attempt=0)
    assert store.claim_stage(run_id, "load", 0, "task")


def test_a_late_retry_note_does_not_stop_the_attempt_that_runs(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    store.claim_stage(run_id, "load", 1, "task")
    assert not retry(store, run_id)
    assert not retry(store, run_id, attempt=1, next_attempt=2, task_id="another task")
    assert retry(store, run_id, attempt=1, next_attempt=2, task_id=None)


# -- finishing -----------------------------------------------------------------------------------------


def test_success_makes_the_dependents_ready_once(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    settled = succeed(store, run_id, "load")
    assert settled.ready == (ReadyStage("left", "bias_detection"), ReadyStage("right", "bias_detection"))
    assert not succeed(store, run_id, "load").accepted
    assert store.mark_ready(run_id) == []
    assert [stage.name for stage in store.queued_stages(run_id)] == ["left", "right"]
    assert [stage.name for stage in store.queued_stages(run_id, needing="load")] == ["left", "right"]
    assert store.queued_stages(run_id, needing="left") == []


def test_success_keeps_the_output_the_report_and_the_rows(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    succeed(store, run_id, "load")
    stage = store.get_run(run_id).stage("load")
    assert (stage.output, stage.report, stage.rows_done, stage.rows_total) == (
        {"url": "x"},
        {"rows": 3},
        3,
        3,
    )
    assert stage.finished_at is not None


@pytest.mark.parametrize("_round", range(10))
def test_two_finishers_at_once_make_the_join_ready_exactly_once(store: PipelineStore, _round: int) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    succeed(store, run_id, "load")
    for side in ("left", "right"):
        store.claim_stage(run_id, side, 0, "task")
    settled = at_once([partial(succeed, store, run_id, side) for side in ("left", "right")])
    assert [stage.name for one in settled for stage in one.ready] == ["join"]


@pytest.mark.parametrize("_round", range(5))
def test_two_last_stages_at_once_finish_the_run_once(store: PipelineStore, _round: int) -> None:
    run_id = new_run(store, {"one": [], "two": []})
    for name in ("one", "two"):
        store.claim_stage(run_id, name, 0, "task")
    settled = at_once([partial(succeed, store, run_id, name) for name in ("one", "two")])
    assert sorted(str(one.run_state) for one in settled) == ["running", "succeeded"]
    assert store.get_run(run_id).state is RunState.SUCCEEDED


def test_a_success_and_a_failure_at_once_leave_the_join_skipped_and_the_run_failed(
    store: PipelineStore,
) -> None:
    run_id = new_run(store, {"one": [], "two": [], "join": ["one", "two"]})
    for name in ("one", "two"):
        store.claim_stage(run_id, name, 0, "task")
    at_once(
        [
            lambda: succeed(store, run_id, "one"),
            lambda: store.fail_stage(run_id, "two", BiasDetectionError("biased"), "task"),
        ]
    )
    assert states(store, run_id) == {"one": "succeeded", "two": "failed", "join": "skipped"}
    assert store.get_run(run_id).state is RunState.FAILED


def test_a_failure_skips_what_depends_on_it_and_lets_other_branches_go_on(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    succeed(store, run_id, "load")
    for side in ("left", "right"):
        store.claim_stage(run_id, side, 0, "task")
    error = BiasDetectionError("demographic parity is 0.4")
    settled = store.fail_stage(run_id, "left", error, "task")
    assert (settled.accepted, settled.run_state) == (True, RunState.RUNNING)
    assert states(store, run_id) == {
        "load": "succeeded",
        "left": "failed",
        "right": "running",
        "join": "skipped",
    }
    assert succeed(store, run_id, "right").run_state is RunState.FAILED
    run = store.get_run(run_id)
    assert (run.error_id, run.error_code, run.error_message) == (
        error.error_id,
        error.error_code,
        error.message,
    )
    assert run.finished
    assert run.finished_at is not None


@pytest.mark.parametrize(("text", "stored"), [("a\0b", "a\ufffdb"), ("\ud800 ü", "\ufffd ü"), ("ü😀", "ü😀")])
def test_text_that_postgresql_cannot_hold_keeps_no_stage_from_its_end(
    store: PipelineStore, text: str, stored: str
) -> None:
    run_id = new_run(store, {"load": [], "check": ["load"]})
    store.claim_stage(run_id, "load", 0, "task")
    report = {text: [text]}
    store.succeed_stage(run_id, "load", attempt=0, task_id="task", output=None, report=report, rows=3)
    store.claim_stage(run_id, "check", 0, "task")
    assert store.fail_stage(run_id, "check", ValidationError(f"no file {text}"), "task").accepted
    run = store.get_run(run_id)
    assert run.stage("load").report == {stored: [stored]}
    assert run.error_message == f"no file {stored}"


def test_the_first_failure_is_the_run_s_error(store: PipelineStore) -> None:
    run_id = new_run(store, {"one": [], "two": []})
    store.fail_stage(run_id, "one", BiasDetectionError("first"))
    store.fail_stage(run_id, "two", BiasDetectionError("second"))
    assert store.get_run(run_id).error_message == "first"


def test_a_task_that_does_not_hold_the_claim_cannot_fail_the_stage(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.claim_stage(run_id, "load", 0, "task")
    assert not store.fail_stage(run_id, "load", BiasDetectionError("x"), "another task").accepted
    assert store.fail_stage(run_id, "load", BiasDetectionError("x"), "task").accepted
    assert not store.fail_stage(run_id, "load", BiasDetectionError("x"), "task").accepted


def test_a_stage_that_gave_up_before_it_was_claimed_fails_its_run(store: PipelineStore) -> None:
    run_id = new_run(store, {"one": []})
    assert (
        store.fail_stage(run_id, "one", ServiceUnavailableError("away"), "task").run_state is RunState.FAILED
    )
    assert not store.claim_stage(run_id, "one", 0, "task")
    assert store.mark_ready(run_id) == []


# -- reading -------------------------------------------------------------------------------------------


def test_progress_is_shown_while_a_stage_runs(store: PipelineStore) -> None:
    run_id = new_run(store)
    store.progress(run_id, "load", 1, 10)
    assert store.get_run(run_id).stage("load").rows_done is None
    store.claim_stage(run_id, "load", 0, "task")
    store.progress(run_id, "load", 5, 10)
    store.progress(run_id, "load", 6)
    stage = store.get_run(run_id).stage("load")
    assert (stage.rows_done, stage.rows_total) == (6, 10)


def test_runs_are_listed_youngest_first(store: PipelineStore) -> None:
    ids = [new_run(store) for _ in range(3)]
    listed = [run.run_id for run in store.list_runs(2)]
    assert listed == [ids[2], ids[1]]


def test_a_view_is_json_safe(store: PipelineStore) -> None:
    document = store.get_run(new_run(store)).to_dict()
    assert document["created_at"].endswith("+00:00")
    assert document["stages"][3]["needs"] == ["left", "right"]


# -- the database's own guards ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE pipeline_run SET state = 'lost'",
        "UPDATE pipeline_run SET state = 'succeeded'",
        "UPDATE stage_run SET state = 'lost'",
        "UPDATE stage_run SET state = 'failed'",
        "UPDATE stage_run SET attempt = -1",
        "UPDATE stage_run SET state = 'retrying'",
    ],
)
def test_the_database_refuses_a_row_that_contradicts_itself(
    store: PipelineStore, engine: Engine, change: str
) -> None:
    of_the_run = text(f"{change} WHERE run_id = :run_id").bindparams(bindparam("run_id", type_=Uuid()))
    run_id = new_run(store)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(of_the_run, {"run_id": uuid.UUID(run_id)})


def test_a_run_takes_its_stages_with_it(store: PipelineStore, engine: Engine) -> None:
    run_id = new_run(store)
    with engine.begin() as connection:
        connection.execute(delete(PipelineRun).where(PipelineRun.run_id == uuid.UUID(run_id)))
        left = connection.execute(select(StageRun.name).where(StageRun.run_id == uuid.UUID(run_id))).all()
    assert left == []


def test_a_database_that_is_away_is_an_error_worth_a_retry() -> None:
    away = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 2})
    store = PipelineStore(away, ReversingCipher(), SystemClock())
    with pytest.raises(ServiceUnavailableError):
        store.claim_stage(str(uuid.uuid4()), "load", 0, "task")
    away.dispose()


def test_every_stage_state_can_be_stored(store: PipelineStore) -> None:
    seen = {StageState.CANCELLED, StageState.SPLIT}  # see the state machine, and test_parts
    run_id = new_run(store)
    seen |= {stage.state for stage in store.get_run(run_id).stages}
    store.claim_stage(run_id, "load", 0, "task")
    seen.add(store.get_run(run_id).stage("load").state)
    retry(store, run_id)
    seen.add(store.get_run(run_id).stage("load").state)
    store.claim_stage(run_id, "load", 1, "task")
    succeed(store, run_id, "load", attempt=1)
    store.fail_stage(run_id, "left", BiasDetectionError("x"))
    seen |= {stage.state for stage in store.get_run(run_id).stages}
    assert seen == set(StageState)


def test_an_error_handled_for_a_run_is_noted_once_and_leaves_its_state(runtime: Runtime) -> None:
    definition = parse_definition(
        {"name": "noted", "source": {"url": "x.csv"}, "stages": [{"name": "load", "stage": "dataset_load"}]}
    )
    run_id = str(uuid.uuid4())
    runtime.pipeline_store.create_run(run_id, definition, None)

    first = runtime.handler.handle_pipeline_error(ServiceUnavailableError("away"), run_id, "load")
    runtime.handler.handle_pipeline_error(ServiceUnavailableError("still away"), run_id, "load")

    run = runtime.pipeline_store.get_run(run_id)
    assert run.error_id == first["error_id"]
    assert run.error_message == "away"
    assert run.state == "queued"
