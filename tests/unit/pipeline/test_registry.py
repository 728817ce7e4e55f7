from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import techdeck_tasks
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline import StageContext, StageParams, StageResult, registry
from techdeck_tasks.pipeline.registry import find_stage, known_stages, stage


def body(context: StageContext, params: StageParams) -> StageResult:
    return StageResult()


@pytest.fixture(autouse=True)
def untouched_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load_stages()
    monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))


def test_the_built_in_stages_are_known_and_summarised() -> None:
    kinds = {kind.name: kind for kind in known_stages()}
    assert {"dataset_load", "validation", "data_processing", "bias_detection", "export"} <= set(kinds)
    assert all(kind.summary and issubclass(kind.params, StageParams) for kind in kinds.values())


def test_an_own_stage_is_found_by_its_name() -> None:
    assert stage("mine", params=StageParams, summary="mine")(body) is body
    assert find_stage("mine").body is body


def test_a_name_that_is_taken_is_refused_and_both_are_named() -> None:
    with pytest.raises(
        ValidationError, match=r"'export' of .*body is taken by .*stages\.export\.export; choose"
    ):
        stage("export", params=StageParams, summary="mine")(body)


def test_a_module_may_be_loaded_again() -> None:
    stage("mine", params=StageParams, summary="mine")(body)
    stage("mine", params=StageParams, summary="mine")(body)


def test_a_plugin_brings_its_stages_and_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab_stages.py").write_text(
        "from techdeck_tasks.pipeline import stage, StageParams, StageResult\n"
        "@stage('lab', params=StageParams, summary='from a plugin')\n"
        "def lab(context, params): return StageResult()\n"
    )
    (tmp_path / "broken_stages.py").write_text("import no_such_module_at_all\n")
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    points = info / "entry_points.txt"
    points.write_text("[techdeck_tasks.stages]\nlab = lab_stages\n")
    program = (
        "from techdeck_tasks.pipeline.registry import find_stage\n"
        "from techdeck_tasks.errors import TechDeckError\n"
        "try: print(find_stage('lab').summary)\n"
        "except TechDeckError as error: print(error)\n"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": f"{tmp_path}:{Path(techdeck_tasks.__file__).parents[1]}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run() == "from a plugin\n"
    points.write_text("[techdeck_tasks.stages]\nlab = broken_stages\n")
    assert "the stage plugin 'lab' (broken_stages) cannot be imported" in run()


def test_the_package_s_own_entry_points_are_consistent() -> None:
    for point in metadata.entry_points(group=registry.ENTRY_POINT_GROUP):
        point.load()
