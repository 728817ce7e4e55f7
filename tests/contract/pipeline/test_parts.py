"""Stages that are split: on both databases, with real stages and files; messages are kept in a list."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import Engine

from techdeck_tasks.errors import DataProcessingError, ServiceUnavailableError, TechDeckError, WorkerLostError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline import StageContext, StageParams, StageResult, parse_definition, stage
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.registry import Partitioning, concatenated
from techdeck_tasks.pipeline.runs.control import RunControl
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.state import LEASED_STAGE_STATES, StageState
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.pipeline.runs.store import PipelineStore
from techdeck_tasks.pipeline.runs.view import RunView
from techdeck_tasks.testing.clock import FakeClock

ROWS = 400
PART_BYTES = 1000
AT_ONCE = 3
LEASE = timedelta(seconds=60)
RULES = {"columns": {"age": {"ge": 0}}, "max_bad_rows": 50}
STEPS = {"steps": [{"derive": {"next": "age + 1"}}, {"filter": "next > 5"}]}


class TrippingParams(StageParams):
    """Rows above the limit trip, unless the file is there."""

    above: int
    unless: str


def _trip(context: StageContext, params: TrippingParams) -> StageResult:
    rows = context.input().collect()
    if rows["n"].max() > params.above and not Path(params.unless).exists():  # type: ignore[operator]  # integers
        raise DataProcessingError("tripped")
    return StageResult(rows, {"rows": rows.height})


stage(
    "test_trip",
    params=TrippingParams,
    summary="fails for the rows above a limit",
    partitioning=Partitioning(join=concatenated),
)(_trip)


class World:
    """An engine, what it sent, and a worker that works it off as Celery would, without retries."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        cipher = Cipher(KeySet("k", {"k": bytes(32)}))
        self.folder = folder
        self.clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.store = PipelineStore(engine, cipher, self.clock, LEASE, AT_ONCE)
        self.control = RunControl(engine, self.clock, LEASE, AT_ONCE)
        self.artifacts = ArtifactStore(str(folder / "artifacts"), cipher)
        self.engine = PipelineEngine(self.store, self.artifacts, self, self.clock)
        self.waiting: list[tuple[str, ReadyStage]] = []
        self.ran: Counter[str] = Counter()
        self.most_at_once = 0

    def send(self, run_id: str, stage: ReadyStage) -> None:
        self.waiting.append((run_id, stage))

    def start(
        self,
        text: str,
        *stages: dict[str, Any],
        part_bytes: int = PART_BYTES,
        name: str = "rows.csv",
        **params: Any,
    ) -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        load = {"name": "load", "stage": "dataset_load", "params": {"part_bytes": part_bytes, **params}}
        needs = [load, *stages]
        specs = [{**spec, "needs": [needs[i - 1]["name"]] if i else []} for i, spec in enumerate(needs)]
        source = {"url": str(self.folder / name)}
        definition = parse_definition({"name": "parts", "source": source, "stages": specs})
        return str(self.engine.start(str(uuid.uuid4()), definition)["run_id"])

    def step(self) -> None:
        run_id, ready = self.waiting.pop(0)
        self.ran[ready.name] += 1
        task_id = str(uuid.uuid4())
        try:
            self.engine.run_stage(run_id, ready.name, ready.attempt, task_id, ready.generation)
        except TechDeckError as error:
            self.engine.stage_failed(run_id, ready.name, error, task_id, ready.generation)
        self.most_at_once = max(self.most_at_once, self.under_way(run_id))

    def work(self, run_id: str) -> RunView:
        while self.waiting:
            self.step()
        return self.store.get_run(run_id)

    def under_way(self, run_id: str) -> int:
        names = [spec.name for spec in self.store.get_run(run_id).stages]
        parts = [part for name in names for part in self.store.get_parts(run_id, name)]
        return sum(part.state in LEASED_STAGE_STATES for part in parts)

    def states(self, run_id: str, stage: str) -> list[StageState]:
        return [part.state for part in self.store.get_parts(run_id, stage)]

    def rows(self, ref: dict[str, Any] | None, name: str) -> pl.DataFrame:
        assert ref is not None
        (workspace := self.folder / f"{name}-{uuid.uuid4()}").mkdir()
        return self.artifacts.scan(ArtifactRef.from_dict(ref), workspace).collect()


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> World:
    return World(engine, tmp_path)


def csv(ages: dict[int, Any] | None = None, rows: int = ROWS) -> str:
    """Return rows of a number and an age, which is that of `ages` or 7."""
    known = ages or {}
    return "n,age\n" + "".join(f"{n},{known.get(n, 7)}\n" for n in range(rows))


CHECK = {"name": "check", "stage": "validation", "params": RULES}
PREPARE = {"name": "prepare", "stage": "data_processing", "params": STEPS}


def test_parts_give_what_the_whole_gives_and_bad_rows_have_their_number_in_the_file(world: World) -> None:
    text = csv({3: -1, 250: -5, 399: -2, 100: 1})
    views = [world.work(world.start(text, CHECK, PREPARE, part_bytes=size)) for size in (PART_BYTES, 1 << 20)]
    assert [view.state for view in views] == ["succeeded", "succeeded"]
    split, whole = views
    assert (split.stage("load").parts, whole.stage("load").parts) == ({"succeeded": 2}, {})
    for name in ("load", "check", "prepare"):
        one, other = (dict(view.stage(name).report or {}) for view in views)
        quarantines = [report.pop("quarantine", None) for report in (one, other)]
        assert one == other
        assert split.stage(name).rows_done == whole.stage(name).rows_done
        if quarantines[0] is not None:
            found, expected = (world.rows(ref, name) for ref in quarantines)
            assert found["_row"].to_list() == [3, 250, 399]
            assert found.drop("_row").equals(expected.drop("_row"))
    results = [world.rows(view.stage("prepare").output, "prepare") for view in views]
    assert results[0].equals(results[1])
    assert results[0].height == ROWS - 4


def test_json_lines_are_read_in_parts_and_bad_rows_have_their_number_in_the_file(world: World) -> None:
    lines = [json.dumps({"n": n, "age": -1 if n in (3, 250) else 7}) for n in range(ROWS)]
    view = world.work(world.start("\n".join(lines), CHECK, PREPARE, name="rows.jsonl"))
    assert view.state == "succeeded"
    assert view.stage("load").parts["succeeded"] > 2
    assert world.ran["check"] == 1
    bad = world.rows((view.stage("check").report or {})["quarantine"], "bad")
    assert bad["_row"].to_list() == [3, 250]
    rows = world.rows(view.stage("prepare").output, "rows")
    assert rows["n"].to_list() == [n for n in range(ROWS) if n not in (3, 250)]


def test_a_file_that_is_changed_while_parts_are_read_is_refused(world: World) -> None:
    run_id = world.start(csv())
    world.step()
    path = world.folder / "rows.csv"
    path.write_text(path.read_text() + "400,7\n")
    view = world.work(run_id)
    assert (view.state, view.error_code) == ("failed", "VALIDATION_ERROR")
    assert "was changed while it was read" in str(view.error_message)


def test_what_one_task_has_read_goes_on_in_parts(world: World) -> None:
    text = csv({7: -1, 300: -2})
    views = [
        world.work(world.start(text, CHECK, PREPARE, part_bytes=part_bytes, trim=True))
        for part_bytes in (PART_BYTES, 1 << 20)
    ]
    parts = [name for name in world.ran if name.startswith("check~")]
    assert len(parts) > 2
    assert world.ran["load~0000"] == 0
    results = [world.rows(view.stage("prepare").output, "rows") for view in views]
    assert results[0].equals(results[1])
    for view in views:
        bad = world.rows((view.stage("check").report or {})["quarantine"], "bad")
        assert bad["_row"].to_list() == [7, 300]


def test_a_part_goes_on_through_the_stages_that_follow_row_by_row(world: World) -> None:
    view = world.work(world.start(csv(), CHECK, PREPARE))
    assert world.ran == {"load": 2, "load~0000": 1, "load~0001": 1, "check": 1, "prepare": 1}
    assert view.stage("check").parts == {"succeeded": 2}


def test_where_two_stages_read_a_stage_its_rows_are_kept(world: World) -> None:
    run_id = world.start(csv(), CHECK, {"name": "again", "stage": "validation", "params": RULES})
    definition = world.store.get_definition(run_id).to_dict()
    definition["stages"][2]["needs"] = ["load"]
    started = world.engine.start(str(uuid.uuid4()), parse_definition(definition))
    view = world.work(str(started["run_id"]))
    assert view.state == "succeeded"
    for name in ("load", "check", "again"):
        assert world.rows(view.stage(name).output, name).height == ROWS


def test_of_one_run_only_so_many_parts_are_under_way(world: World) -> None:
    run_id = world.start(csv(rows=4000))
    world.step()
    assert len(world.store.get_parts(run_id, "load")) > 2 * AT_ONCE
    assert (world.under_way(run_id), len(world.waiting)) == (AT_ONCE, AT_ONCE)
    assert world.work(run_id).state == "succeeded"
    assert world.most_at_once == AT_ONCE


def test_progress_counts_the_rows_of_parts(world: World) -> None:
    run_id = world.start(csv(rows=4000))
    for _ in range(3):
        world.step()
    load = world.store.get_run(run_id).stage("load")
    assert load.state is StageState.SPLIT
    assert load.parts["succeeded"] == 2
    assert 0 < (load.rows_done or 0) < 4000
    assert world.work(run_id).stage("load").rows_done == 4000


@pytest.mark.parametrize(
    "text",
    [
        csv({399: "7.5"}),
        csv({399: "old"}),
        csv({399: "\u00e9t\u00e9"}),
        csv({10: '"two\nlines"', 390: '"1,5"'}),
        csv({2: "'a'", 399: '"'}),
        csv({399: '"a""b\n\n"'}),
        csv(dict.fromkeys(range(0, ROWS, 9), '"' + "line\n" * 5 + '"')),
        csv() + "\n\n" + csv()[6:],
        csv().replace("\n", "\r\n"),
        csv() + "too,many,fields\n",
        csv() + "1\n",
    ],
    ids=["type", "text", "accents", "quotes", "odd", "late", "many", "blank", "crlf", "ragged", "short"],
)
def test_a_file_that_is_not_as_its_beginning_is_read_as_the_whole_would_be(world: World, text: str) -> None:
    ids = [world.start(text, part_bytes=size) for size in (PART_BYTES, 1 << 20)]
    views = [world.work(run_id) for run_id in ids]
    split, whole = (view.stage("load") for view in views)
    assert (split.state, split.error_code) == (whole.state, whole.error_code)
    if whole.state is StageState.SUCCEEDED:
        assert world.rows(split.output, "split").equals(world.rows(whole.output, "whole"))
        assert split.report == whole.report


def test_what_went_ahead_of_a_file_that_is_then_read_whole_is_not_taken_for_its_parts(world: World) -> None:
    text = csv({11_990: "old"}, rows=12_000)
    rules = {"columns": {"n": {"le": 11_000}}, "max_bad_rows": 1000}
    check = {"name": "check", "stage": "validation", "params": rules}
    view = world.work(world.start(text, check, part_bytes=20_000))
    assert (view.state, world.ran["check"]) == ("succeeded", 1)
    rows = world.rows(view.stage("check").output, "check")
    assert rows["n"].to_list() == list(range(11_001))
    assert rows.schema["age"] == pl.String


def test_too_many_bad_rows_fail_the_stage_by_the_count_of_all_parts(world: World) -> None:
    check = {**CHECK, "params": {**RULES, "max_bad_rows": 3}}
    view = world.work(world.start(csv(dict.fromkeys((1, 2, 398, 399), -1)), check))
    assert (view.state, view.error_code) == ("failed", "VALIDATION_ERROR")
    assert "4 of 400 rows are bad" in str(view.error_message)


def tripping(world: World, above: int) -> dict[str, Any]:
    params = {"above": above, "unless": str(world.folder / "mended")}
    return {"name": "trip", "stage": "test_trip", "params": params}


def test_a_part_that_fails_for_good_fails_its_stage_and_resume_repeats_that_part_alone(world: World) -> None:
    run_id = world.start(csv(rows=4000), tripping(world, 3900), PREPARE)
    view = world.work(run_id)
    assert [one.state for one in view.stages] == ["succeeded", "failed", "skipped"]
    trip = view.stage("trip")
    assert (trip.rows_total, trip.parts["failed"]) == (4000, 1)
    assert 0 < (trip.rows_done or 0) < 4000
    assert (view.state, view.error_message) == ("failed", view.stage("trip").error_message)
    failed = [part.name for part in world.store.get_parts(run_id, "trip") if part.state != "succeeded"]
    assert len(failed) == 1
    (world.folder / "mended").touch()
    world.ran.clear()
    world.engine.send(run_id, world.control.resume_run(run_id))
    view = world.work(run_id)
    assert view.state == "succeeded"
    assert {name for name in world.ran if name.startswith("trip~")} == set(failed)
    assert not [name for name in world.ran if name.startswith("load")]
    assert world.rows(view.stage("prepare").output, "prepare")["n"].to_list() == list(range(4000))


def test_the_parts_that_did_not_begin_are_given_up_when_one_has_failed(world: World) -> None:
    run_id = world.start(csv(rows=4000))
    world.step()
    doomed = world.waiting.pop(0)[1].name
    claimed = world.waiting[0][1].name
    assert world.store.claim_stage(run_id, claimed, 0, "busy")
    world.engine.stage_failed(run_id, doomed, ServiceUnavailableError("gone"))
    states = Counter(world.states(run_id, "load"))
    assert states.keys() == {"failed", "running", "cancelled", "skipped"}
    assert world.store.get_run(run_id).state == "running"
    world.engine.store.succeed_stage(
        run_id, claimed, attempt=0, task_id="busy", output=None, report={}, rows=1
    )
    view = world.store.get_run(run_id)
    assert (view.state, view.stage("load").error_code) == ("failed", "SERVICE_UNAVAILABLE")
    assert world.work(run_id) == view


def test_cancelling_ends_what_waits_and_what_a_part_delivers_later_is_refused(world: World) -> None:
    run_id = world.start(csv(rows=4000))
    world.step()
    busy = world.waiting[0][1].name
    assert world.store.claim_stage(run_id, busy, 0, "busy")
    assert world.control.cancel_run(run_id) == "cancelling"
    late = world.store.succeed_stage(run_id, busy, attempt=0, task_id="busy", output=None, report={}, rows=1)
    assert not late.accepted
    assert world.store.get_run(run_id).state == "cancelled"
    assert set(world.states(run_id, "load")) == {"cancelled"}
    world.waiting.clear()
    world.engine.send(run_id, world.control.resume_run(run_id))
    view = world.work(run_id)
    assert view.state == "succeeded"
    assert world.rows(view.stage("load").output, "load").height == 4000


def test_a_lost_part_is_found_and_done_again_by_itself(world: World) -> None:
    run_id = world.start(csv())
    world.step()
    lost_message, killed = world.waiting[0][1].name, world.waiting[1][1].name
    assert world.store.claim_stage(run_id, killed, 0, "killed")
    world.waiting.clear()
    world.clock.sleep(LEASE.total_seconds() + 1)
    overdue = {one.name: one for one in world.control.overdue_stages() if one.run_id == run_id}
    assert set(overdue) == {lost_message, killed}
    world.engine.send(run_id, world.control.resend_stage(overdue[lost_message]))
    settled = world.control.lose_attempt(
        overdue[killed], WorkerLostError("x"), next_attempt=1, record=lambda: None
    )
    world.engine.send(run_id, settled.ready)
    view = world.work(run_id)
    assert view.state == "succeeded"
    assert world.store.get_stage(run_id, killed).attempt == 1
    assert world.rows(view.stage("load").output, "load")["n"].to_list() == list(range(ROWS))


def test_a_message_that_came_twice_has_no_second_effect(world: World) -> None:
    run_id = world.start(csv(), CHECK)
    world.step()
    doubled = list(world.waiting)
    world.waiting += doubled
    view = world.work(run_id)
    assert view.state == "succeeded"
    assert world.rows(view.stage("check").output, "check").height == ROWS
