"""The Celery tasks, in eager mode on real servers and under a testbed, and the dispatcher on real brokers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import select

from techdeck_tasks.errors import ConnectionFailedError, ServiceUnavailableError, ValidationError
from techdeck_tasks.pipeline import StageContext, StageParams, StageResult, parse_definition, stage
from techdeck_tasks.pipeline.models import StageRun
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.pipeline.tasks import EXECUTE, STAGE_PREFIX, CeleryDispatcher
from techdeck_tasks.runtime import Runtime, create_app
from techdeck_tasks.settings import Settings
from techdeck_tasks.testing import TechDeckTestbed


class RecoveringParams(StageParams):
    failures: int = 1


@stage("test_recovering", params=RecoveringParams, summary="fails as often as it is told, then succeeds")
def recovering(context: StageContext, params: RecoveringParams) -> StageResult:
    if context.attempt < params.failures:
        raise ServiceUnavailableError("the laboratory is away", service_name="laboratory")
    return StageResult(report={"attempt": context.attempt})


@pytest.fixture(params=["servers", "memory"])
def eager(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """A runtime whose application is eager: on real servers, and that of a testbed."""
    if request.param == "memory":
        with TechDeckTestbed() as testbed:
            yield testbed.runtime
        return
    runtime: Runtime = request.getfixturevalue("runtime")
    assert runtime.app is not None
    runtime.app.conf.task_always_eager = True
    yield runtime


@pytest.fixture
def app(eager: Runtime) -> Celery:
    assert eager.app is not None
    return eager.app


def definition(folder: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    (folder / "people.csv").write_text("name,age\nAda,36\nBob,51\n")
    return {"name": "people", "source": {"url": str(folder / "people.csv")}, "stages": list(stages)}


def test_each_kind_of_stage_has_its_task_in_the_pipeline_queue(runtime: Runtime) -> None:
    app = runtime.app
    assert app is not None
    for kind in (
        "dataset_load",
        "validation",
        "data_processing",
        "bias_detection",
        "export",
        "test_recovering",
    ):
        assert app.tasks[STAGE_PREFIX + kind].service == kind
        assert app.amqp.router.route({}, STAGE_PREFIX + kind)["queue"].name == "pipeline"
    assert app.tasks[EXECUTE].service == "pipeline"


def test_a_pipeline_runs_under_the_id_of_its_task(app: Celery, eager: Runtime, tmp_path: Path) -> None:
    export = {
        "name": "export",
        "needs": ["dataset_load"],
        "params": {"destination": str(tmp_path / "out.csv")},
    }
    task_id = str(uuid.uuid4())
    result = app.tasks[EXECUTE].apply_async(
        (definition(tmp_path, {"name": "dataset_load"}, export),), task_id=task_id
    )
    assert result.get() == {"run_id": task_id, "state": "succeeded"}
    assert (tmp_path / "out.csv").read_text() == "name,age\nAda,36\nBob,51\n"
    assert [stage.state for stage in eager.pipeline.store.get_run(task_id).stages] == ["succeeded"] * 2


def test_an_idempotency_key_gives_the_run_it_has(app: Celery, tmp_path: Path) -> None:
    key = uuid.uuid4().hex
    given = definition(tmp_path, {"name": "dataset_load"})
    first = app.tasks[EXECUTE].delay(given, idempotency_key=key).get()
    assert app.tasks[EXECUTE].delay(given, idempotency_key=key).get() == first


def test_a_stage_that_recovers_keeps_what_it_recovered_from(
    app: Celery, eager: Runtime, tmp_path: Path
) -> None:
    result = app.tasks[EXECUTE].delay(definition(tmp_path, {"name": "lab", "stage": "test_recovering"})).get()
    stage = eager.pipeline.store.get_run(result["run_id"]).stage("lab")
    assert (stage.state, stage.attempt, stage.error_code) == ("succeeded", 1, "SERVICE_UNAVAILABLE")
    assert stage.report == {"attempt": 1}


def test_a_stage_that_gives_up_fails_the_run_and_skips_what_follows(
    app: Celery, eager: Runtime, tmp_path: Path
) -> None:
    lab = {"name": "lab", "stage": "test_recovering", "params": {"failures": 100}}
    after = {"name": "after", "stage": "test_recovering", "needs": ["lab"]}
    result = app.tasks[EXECUTE].delay(definition(tmp_path, lab, after, {"name": "dataset_load"})).get()
    run = eager.pipeline.store.get_run(result["run_id"])
    assert [stage.state for stage in run.stages] == ["failed", "skipped", "succeeded"]
    assert (run.state, run.error_code) == ("failed", "RETRY_EXHAUSTED")


def test_a_definition_that_is_not_valid_leaves_no_run(app: Celery, eager: Runtime, tmp_path: Path) -> None:
    before = len(eager.pipeline.store.list_runs(1000))
    result = app.tasks[EXECUTE].delay(definition(tmp_path, {"name": "dataset_laod"}))
    assert isinstance(result.result, ValidationError)
    assert len(eager.pipeline.store.list_runs(1000)) == before


def test_a_broker_that_is_away_is_an_error_worth_a_retry(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"broker_url": SecretStr("redis://127.0.0.1:1/0")}))
    with pytest.raises(ConnectionFailedError, match="the broker is away"):
        CeleryDispatcher(app).send(str(uuid.uuid4()), ReadyStage("load", "dataset_load"))


def test_a_kind_without_a_task_is_named(app: Celery) -> None:
    with pytest.raises(ValidationError, match="no task runs stages of kind 'unheard'"):
        CeleryDispatcher(app).send(str(uuid.uuid4()), ReadyStage("load", "unheard"))


def test_a_stage_that_meets_an_open_breaker_is_not_taken_for_lost_while_it_waits(
    runtime: Runtime, tmp_path: Path
) -> None:
    assert runtime.app is not None
    run_id = str(uuid.uuid4())
    load = {"name": "load", "stage": "dataset_load"}
    runtime.pipeline.start(run_id, parse_definition(definition(tmp_path, load)))
    lease = select(StageRun.lease_until).where(StageRun.run_id == uuid.UUID(run_id))
    with runtime.engine.connect() as connection:
        before = connection.scalars(lease).one()
    runtime.app.tasks[f"{STAGE_PREFIX}dataset_load"].tell_parked(500.0, (run_id, "load", 0), {})
    with runtime.engine.connect() as connection:
        after = connection.scalars(lease).one()
    assert before is not None
    assert after is not None
    assert timedelta(seconds=499) < after - before < timedelta(seconds=560)
