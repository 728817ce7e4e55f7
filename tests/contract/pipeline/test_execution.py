"""PipelineEngine on real PostgreSQL, real files and real stages; messages are kept in a list."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import Engine

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import (
    AuthorizationError,
    CircuitBreakerError,
    ConnectionFailedError,
    DataProcessingError,
    PipelineExecutionError,
    ServiceUnavailableError,
    TechDeckError,
    ValidationError,
)
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline import (
    PipelineDefinition,
    StageContext,
    StageParams,
    StageResult,
    parse_definition,
    stage,
)
from techdeck_tasks.pipeline.data.artifacts import ArtifactStore
from techdeck_tasks.pipeline.data.boundary import Boundary
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.hold import Claimed
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.pipeline.runs.store import PipelineStore
from techdeck_tasks.pipeline.runs.view import RunView

CSV = "name,sex,age\nAda,F,36\nBob,M,51\nCid,M,old\nDee,F,28\n"


CIPHER = Cipher(KeySet("test", {"test": bytes(32)}))


class Mailbox:
    """Keeps what is sent; `down` makes sending fail."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, str]] = []
        self.down = False

    def send(self, run_id: str, stage: ReadyStage) -> None:
        if self.down:
            raise ConnectionFailedError("the broker is away")
        self.messages.append((run_id, stage.name, stage.kind))


class World:
    """An engine, its mailbox, and a worker that works it off as Celery would, without retries."""

    def __init__(self, engine: Engine, folder: Path, boundary: Boundary | None = None) -> None:
        self.mailbox = Mailbox()
        self.artifacts = folder / "artifacts"
        self.store = PipelineStore(engine, CIPHER, SystemClock())
        self.engine = PipelineEngine(
            self.store,
            ArtifactStore(f"file://{self.artifacts}", CIPHER),
            self.mailbox,
            SystemClock(),
            boundary=boundary,
        )
        self.errors: dict[str, TechDeckError] = {}

    def start(self, definition: PipelineDefinition, key: str | None = None) -> str:
        return str(self.engine.start(str(uuid.uuid4()), definition, key)["run_id"])

    def work(self) -> list[dict[str, Any]]:
        done = []
        while self.mailbox.messages:
            run_id, stage_name, _ = self.mailbox.messages.pop(0)
            task_id = str(uuid.uuid4())
            try:
                done.append(self.engine.run_stage(run_id, stage_name, 0, task_id))
            except TechDeckError as error:
                self.errors[stage_name] = error
                self.engine.stage_failed(run_id, stage_name, error, task_id)
        return done

    def run(self, definition: PipelineDefinition) -> RunView:
        run_id = self.start(definition)
        self.work()
        return self.store.get_run(run_id)


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(CSV)
    return path


def pipeline(source: Path, *stages: dict[str, Any]) -> PipelineDefinition:
    return parse_definition({"name": "people", "source": {"url": str(source)}, "stages": list(stages)})


def checked(source: Path, destination: Path, **limits: Any) -> PipelineDefinition:
    return pipeline(
        source,
        {"name": "dataset_load"},
        {
            "name": "validation",
            "needs": ["dataset_load"],
            "params": {"columns": {"age": {"dtype": "int", "ge": 30}}, **limits},
        },
        {"name": "export", "needs": ["validation"], "params": {"destination": str(destination)}},
    )


def test_a_definition_that_names_a_folder_of_the_service_is_never_stored(
    engine: Engine, source: Path, tmp_path: Path
) -> None:
    world = World(engine, tmp_path, Boundary((tmp_path / "private",)))
    before = world.store.list_runs()
    with pytest.raises(AuthorizationError, match=r"stages\.export\.params\.destination"):
        world.start(checked(source, tmp_path / "private" / "message.parquet"))
    assert world.store.list_runs() == before


def test_a_source_that_became_a_link_into_the_service_is_refused_by_the_worker(
    engine: Engine, source: Path, tmp_path: Path
) -> None:
    (private := tmp_path / "private").mkdir()
    (private / "message.csv").write_text(CSV)
    world = World(engine, tmp_path, Boundary((private,)))
    run_id = world.start(pipeline(source, {"name": "dataset_load"}))
    source.unlink()
    source.symlink_to(private / "message.csv")
    world.work()
    assert isinstance(world.errors["dataset_load"], AuthorizationError)
    assert world.store.get_run(run_id).state == "failed"


calls: list[str] = []


class NoisyParams(StageParams):
    report: dict[str, Any] | None = None
    fail: str | None = None


@stage("test_noisy", params=NoisyParams, summary="does what the test says")
def noisy(context: StageContext, params: NoisyParams) -> StageResult:
    calls.append(context.stage)
    context.report_progress(1, 2)
    if params.fail == "polars":
        pl.DataFrame({"ssn": ["123-45-6789"]}).select(pl.col("ssn").cast(pl.Int64))
    if params.fail == "input":
        context.input()
    if params.fail == "nan":
        return StageResult(report={"rate": float("nan")})
    return StageResult(report=params.report or {})


def test_a_pipeline_runs_from_file_to_file(world: World, source: Path, tmp_path: Path) -> None:
    run = world.run(checked(source, tmp_path / "out.parquet", max_bad_rows=2))
    assert (str(run.state), [str(one.state) for one in run.stages]) == ("succeeded", ["succeeded"] * 3)
    assert pl.read_parquet(tmp_path / "out.parquet").rows() == [("Ada", "F", 36), ("Bob", "M", 51)]
    report = run.stage("validation").report
    assert report is not None
    assert (report["rows_in"], report["bad_rows"], report["bad_rows_by_rule"]) == (
        4,
        2,
        {"age.dtype": 1, "age.ge": 1},
    )


def test_too_many_bad_rows_fail_the_run_and_skip_the_export(
    world: World, source: Path, tmp_path: Path
) -> None:
    run = world.run(checked(source, tmp_path / "out.parquet", max_bad_share=0.25))
    assert [str(one.state) for one in run.stages] == ["succeeded", "failed", "skipped"]
    assert (str(run.state), run.error_code) == ("failed", "VALIDATION_ERROR")
    assert not (tmp_path / "out.parquet").exists()
    assert isinstance(world.errors["validation"], ValidationError)


def test_nothing_of_the_data_is_in_the_state_of_a_run(world: World, source: Path, tmp_path: Path) -> None:
    for limits in ({"max_bad_rows": 2}, {}):
        run = world.run(checked(source, tmp_path / "out.parquet", **limits))
        text = str(run.to_dict())
        assert not [word for word in ("Ada", "Bob", "Cid", "Dee", "'old'", "28") if f"{word}," in text]


def test_a_message_delivered_twice_runs_the_stage_once(world: World, source: Path) -> None:
    calls.clear()
    run_id = world.start(pipeline(source, {"name": "only", "stage": "test_noisy"}))
    world.mailbox.messages *= 3
    summaries = world.work()
    assert calls == ["only"]
    assert [one["claimed"] for one in summaries] == [True, False, False]
    assert str(world.store.get_run(run_id).state) == "succeeded"


def test_starting_twice_sends_again_what_waits_and_changes_nothing(world: World, source: Path) -> None:
    definition = pipeline(source, {"name": "only", "stage": "test_noisy"})
    run_id = str(uuid.uuid4())
    first = world.engine.start(run_id, definition)
    second = world.engine.start(run_id, definition)
    assert first == second == {"run_id": run_id, "state": "queued"}
    assert world.mailbox.messages == [(run_id, "only", "test_noisy")] * 2
    world.work()
    assert world.engine.start(run_id, definition) == {"run_id": run_id, "state": "succeeded"}
    assert world.mailbox.messages == []


def test_an_idempotency_key_gives_the_run_it_has(world: World, source: Path) -> None:
    definition = pipeline(source, {"name": "only", "stage": "test_noisy"})
    key = uuid.uuid4().hex
    assert world.start(definition, key) == world.start(definition, key)


def test_a_broker_that_was_away_after_a_success_costs_a_second_message_only(
    world: World, source: Path
) -> None:
    calls.clear()
    first = {"name": "first", "stage": "test_noisy"}
    run_id = world.start(
        pipeline(source, first, {"name": "second", "stage": "test_noisy", "needs": ["first"]})
    )
    world.mailbox.messages.clear()
    world.mailbox.down = True
    with pytest.raises(ConnectionFailedError):
        world.engine.run_stage(run_id, "first", 0, "task")
    world.mailbox.down = False
    assert world.engine.run_stage(run_id, "first", 1, "task")["claimed"] is False
    world.work()
    assert calls == ["first", "second"]
    assert str(world.store.get_run(run_id).state) == "succeeded"


def test_a_run_that_could_not_be_sent_ends_as_failed(world: World, source: Path) -> None:
    world.mailbox.down = True
    run_id = str(uuid.uuid4())
    with pytest.raises(ConnectionFailedError) as away:
        world.engine.start(run_id, pipeline(source, {"name": "only", "stage": "test_noisy"}))
    world.engine.start_failed(run_id, away.value)
    run = world.store.get_run(run_id)
    assert (str(run.state), run.error_code) == ("failed", "CONNECTION_ERROR")


def test_a_retry_goes_on_where_the_first_attempt_stopped(world: World, source: Path) -> None:
    run_id = world.start(pipeline(source, {"name": "dataset_load"}))
    moved = source.rename(source.with_suffix(".away"))
    with pytest.raises(ValidationError):
        world.engine.run_stage(run_id, "dataset_load", 0, "task")
    moved.rename(source)
    error = ServiceUnavailableError("the share is away")
    world.engine.stage_retrying(
        run_id, "dataset_load", error, attempt=0, task_id="task", delay=timedelta(seconds=1)
    )
    assert world.store.get_run(run_id).stage("dataset_load").attempt == 1
    summary = world.engine.run_stage(run_id, "dataset_load", 1, "task")
    assert (summary["state"], summary["attempt"], summary["rows"]) == ("succeeded", 1, 4)


def test_parking_for_a_breaker_keeps_the_attempt(world: World, source: Path) -> None:
    run_id = world.start(pipeline(source, {"name": "dataset_load"}))
    world.store.claim_stage(run_id, "dataset_load", 0, "task")
    error = CircuitBreakerError("open", retry_after=timedelta(seconds=5))
    world.engine.stage_retrying(
        run_id, "dataset_load", error, attempt=0, task_id="task", delay=timedelta(seconds=5)
    )
    assert world.engine.run_stage(run_id, "dataset_load", 0, "task")["claimed"] is True


def test_the_result_of_an_attempt_that_was_overtaken_is_not_used(world: World, source: Path) -> None:
    calls.clear()
    run_id = world.start(pipeline(source, {"name": "only", "stage": "test_noisy"}))
    store = world.store

    class Overtaken(PipelineStore):
        def claim_stage(
            self, run_id: str, stage: str, attempt: int, task_id: str, generation: int = 0
        ) -> Claimed | None:
            claimed = super().claim_stage(run_id, stage, attempt, task_id, generation)
            store.claim_stage(run_id, stage, attempt + 1, task_id)
            return claimed

    engine = PipelineEngine(
        Overtaken(store._engine, CIPHER, SystemClock()),
        ArtifactStore("unused", CIPHER),
        world.mailbox,
        SystemClock(),
    )
    summary = engine.run_stage(run_id, "only", 0, "task")
    assert (summary["state"], summary["claimed"]) == ("running", False)


def test_an_error_of_polars_in_an_own_stage_carries_no_value(world: World, source: Path) -> None:
    run = world.run(pipeline(source, {"name": "only", "stage": "test_noisy", "params": {"fail": "polars"}}))
    error = world.errors["only"]
    assert isinstance(error, DataProcessingError)
    assert error.__cause__ is None
    assert "123-45-6789" not in str(error.to_dict()) + str(run.to_dict())
    assert "type str cannot be converted to i64" in error.message


@pytest.mark.parametrize(("fail", "kind"), [("nan", PipelineExecutionError), ("input", ValidationError)])
def test_a_stage_that_breaks_its_contract_is_told_so(
    world: World, source: Path, fail: str, kind: type[TechDeckError]
) -> None:
    world.run(pipeline(source, {"name": "only", "stage": "test_noisy", "params": {"fail": fail}}))
    assert isinstance(world.errors["only"], kind)


def test_artifacts_are_the_owner_s_only_and_nothing_temporary_stays(
    world: World, source: Path, tmp_path: Path
) -> None:
    world.run(checked(source, tmp_path / "out.csv", max_bad_rows=2))
    paths = [world.artifacts, *world.artifacts.rglob("*")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths)
    assert {path.suffix for path in paths if path.is_file()} == {".sealed"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_artifact_that_was_changed_is_not_used(world: World, source: Path, tmp_path: Path) -> None:
    run_id = world.start(checked(source, tmp_path / "out.parquet", max_bad_rows=2))
    message = world.mailbox.messages.pop()
    world.engine.run_stage(run_id, message[1], 0, "task")
    (artifact,) = world.artifacts.rglob("*.sealed")
    raw = bytearray(artifact.read_bytes())
    raw[len(raw) // 2] ^= 1
    artifact.write_bytes(raw)
    world.work()
    assert isinstance(world.errors["validation"], PipelineExecutionError)
    assert "not what was written" in world.errors["validation"].message
