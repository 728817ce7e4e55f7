from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline import PipelineDefinition, load_definition, parse_definition
from techdeck_tasks.pipeline.definition import find_problems
from techdeck_tasks.pipeline.document import MAX_SIZE_BYTES

GOOD = """\
name: diabetes
source: {url: patients.csv}
stages:
  - name: dataset_load
  - name: clean
    stage: validation
    needs: [dataset_load]
    params: {columns: {age: {dtype: int, ge: 0, le: 120}}}
  - name: export
    needs: [clean]
    params: {destination: out/clean.parquet}
"""


def stage(name: str, *needs: str, **extra: Any) -> dict[str, Any]:
    return {"name": name, "stage": "dataset_load", "needs": list(needs), **extra}


def pipeline(*stages: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"name": "demo", "source": {"url": "x.csv"}, "stages": list(stages), **extra}


def test_a_source_may_be_a_path_alone() -> None:
    alone, spelled = (
        parse_definition(pipeline(stage("load"), source=source)) for source in ("x.csv", {"url": "x.csv"})
    )
    assert alone == spelled


def refused(mapping: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        parse_definition(mapping)
    assert "\n" not in caught.value.message
    return caught.value.message


def refused_file(folder: Path, content: str | bytes, name: str = "pipeline.yaml") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValidationError) as caught:
        load_definition(path)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "patients.csv").write_text("age\n1\n")
    return tmp_path


def test_a_definition_file_is_read_and_its_paths_are_relative_to_it(folder: Path) -> None:
    (folder / "pipeline.yaml").write_text(GOOD)
    definition = load_definition(folder / "pipeline.yaml")
    assert [(spec.name, spec.kind, spec.needs) for spec in definition.stages] == [
        ("dataset_load", "dataset_load", ()),
        ("clean", "validation", ("dataset_load",)),
        ("export", "export", ("clean",)),
    ]
    assert definition.source.url == str(folder / "patients.csv")
    assert definition.stage("export").params == {"destination": str(folder / "out" / "clean.parquet")}


def test_json_says_the_same_as_yaml(folder: Path) -> None:
    (folder / "pipeline.yaml").write_text(GOOD)
    (folder / "pipeline.json").write_text(json.dumps(yaml.safe_load(GOOD)))
    assert load_definition(folder / "pipeline.json") == load_definition(folder / "pipeline.yaml")


def test_a_definition_survives_json(folder: Path) -> None:
    (folder / "pipeline.yaml").write_text(GOOD)
    definition = load_definition(folder / "pipeline.yaml")
    assert parse_definition(json.loads(json.dumps(definition.to_dict()))) == definition
    assert PipelineDefinition.model_validate_json(json.dumps(definition.to_dict())) == definition


def test_a_url_stays_a_url(tmp_path: Path) -> None:
    definition = parse_definition(
        pipeline(stage("load")) | {"source": {"url": "https://host.example/a.csv"}}, folder=tmp_path
    )
    assert definition.source.url == "https://host.example/a.csv"
    assert definition.source.effective_format == "csv"


def test_an_unknown_stage_kind_is_answered_with_the_nearest_and_the_list() -> None:
    text = refused(pipeline({"name": "a", "stage": "dataset_laod"}))
    assert text.startswith("stages[0].stage: unknown stage kind 'dataset_laod': did you mean 'dataset_load'?")
    assert "bias_detection, data_processing, dataset_load, export, " in text


def test_a_doubled_name_is_named_with_both_places() -> None:
    text = refused(pipeline(stage("a"), stage("b"), stage("a")))
    assert "stages[2].name: 'a' is also the name of stages[0]" in text


def test_a_list_whose_items_are_wrong_is_not_called_too_short() -> None:
    stages = [{"name": "load", "stage": "dataset_load", "timeout_seconds": 10**9}]
    problems = find_problems({"name": "p", "source": "a.csv", "stages": stages})
    assert [problem.details["field"] for problem in problems] == ["stages[0].timeout_seconds"]


def test_an_upload_is_read_by_the_stage_that_takes_files_in() -> None:
    source = "upload://9f6c1f0e5d1c4a41b1a7f2f3a5f5f1b2/a.csv"
    [problem] = find_problems({"name": "p", "source": source, "stages": [{"name": "dataset_load"}]})
    assert "use it in place of dataset_load" in problem.message
    assert not find_problems({"name": "p", "source": source, "stages": [{"name": "file_upload"}]})


def test_an_unknown_need_is_answered_with_the_nearest() -> None:
    assert "'b' needs 'lod', which is no stage; did you mean 'load'?" in refused(
        pipeline(stage("load"), stage("b", "lod"))
    )
    assert "stages are load, b" in refused(pipeline(stage("load"), stage("b", "zzz")))


def test_a_need_named_twice_is_refused() -> None:
    assert "names a stage twice" in refused(pipeline(stage("a"), stage("b", "a", "a")))


@pytest.mark.parametrize(
    ("stages", "cycle"),
    [
        ([stage("a", "a")], "a needs a"),
        ([stage("a", "b"), stage("b", "a")], "a needs b needs a"),
        ([stage("x"), stage("a", "x", "c"), stage("b", "a"), stage("c", "b")], "a needs c needs b needs a"),
        ([stage("tail", "a"), stage("a", "b"), stage("b", "a")], "a needs b needs a"),
    ],
)
def test_a_cycle_is_spelled_out(stages: list[dict[str, Any]], cycle: str) -> None:
    assert refused(pipeline(*stages)) == f"stages: {cycle}: a cycle; remove one of these `needs`"


def test_params_are_checked_against_the_stage_and_the_place_is_named() -> None:
    bad = {"columns": {"age": {"dtype": "int", "ge": "young"}}}
    text = refused(pipeline({"name": "v", "stage": "validation", "params": bad}))
    assert text.startswith("stages[0].params.columns.age.ge: input should be a valid number")
    assert "young" not in text


def test_an_unknown_param_is_refused() -> None:
    text = refused(pipeline(stage("a", params={"sepparator": ";"})))
    assert text == "stages[0].params.sepparator: extra inputs are not permitted"


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ([], "a pipeline definition is a mapping with name, source and stages, not list"),
        (None, "not NoneType"),
        ("name: x", "not str"),
        ({}, "name: field required; source: field required; stages: field required"),
        (pipeline(), "stages: "),
        (pipeline(stage("a"), owner="me"), "owner: extra inputs are not permitted"),
        (pipeline(stage("a", retries=3)), "stages[0].retries: extra inputs are not permitted"),
        (pipeline(stage("../etc")), "stages[0].name: string should match pattern"),
        (pipeline(stage("a\n")), "stages[0].name: string should match pattern"),
        (pipeline(stage("a" * 65)), "stages[0].name: string should have at most 64 characters"),
        (
            pipeline(stage("a")) | {"source": {"url": "x.xlsx"}},
            "source.format: the suffix of x.xlsx names no format",
        ),
        (
            pipeline(stage("a")) | {"source": {"url": "x", "format": "xml"}},
            "source.format: input should be 'csv'",
        ),
        (pipeline(*[stage(f"s{n}") for n in range(201)]), "stages: tuple should have at most 200 items"),
        ({1: 2}, "name: field required"),
    ],
)
def test_what_has_not_the_shape_is_refused_in_one_line(mapping: Any, says: str) -> None:
    assert says in refused(mapping)


def test_many_problems_are_told_as_three_and_a_number() -> None:
    assert refused(pipeline(*[{"nane": "x"} for _ in range(4)])).endswith("; and 5 more")


def test_a_number_that_json_does_not_know_is_refused(folder: Path) -> None:
    text = refused_file(folder, GOOD.replace("le: 120", "le: .nan"))
    assert "stages[1].params" in text


def test_a_missing_source_file_is_named(folder: Path) -> None:
    text = refused_file(folder, GOOD.replace("patients.csv", "patient.csv"))
    assert text == (
        f"source.url: there is no file {folder / 'patient.csv'}; paths are relative to the definition file"
    )


def test_a_missing_definition_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="there is no definition file"):
        load_definition(tmp_path / "none.yaml")
    with pytest.raises(ValidationError, match="cannot be read"):
        load_definition(tmp_path)


def test_malformed_files_are_told_with_their_line(folder: Path) -> None:
    assert "pipeline.yaml, line 2: the file is malformed YAML" in refused_file(folder, "name: x\nstages: ]\n")
    assert "pipeline.yaml, line 2" in refused_file(folder, "name: a\n\tb: c\n")
    assert "line 3: the file is malformed JSON" in refused_file(
        folder, '{"name": "x",\n"stages":\n}', "p.json"
    )
    assert "line 2: the file is not UTF-8" in refused_file(folder, b"name: x\nsource: \xff\n")
    assert "a character that YAML does not allow" in refused_file(folder, "name: x\x00\n")
    assert "malformed YAML: expected a single document" in refused_file(folder, "a: 1\n---\nb: 2\n")
    assert "could not determine a constructor" in refused_file(
        folder, "a: !!python/object/apply:os.getcwd []\n"
    )
    assert "out of range" in refused_file(folder, "a: 2024-13-45\n")


def test_a_file_that_unfolds_is_refused_before_it_does(folder: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "line 2: the file uses a YAML alias" in refused_file(folder, bomb)
    assert "nested deeper than 32 levels" in refused_file(folder, "[" * 5000)
    assert "nested deeper than" in refused_file(folder, "[" * 200_000, "p.json")
    assert f"larger than {MAX_SIZE_BYTES} bytes" in refused_file(folder, b"#" * (MAX_SIZE_BYTES + 1))


def test_a_key_given_twice_is_refused(folder: Path) -> None:
    assert "line 2: the file is malformed YAML: the key 'name' is given twice" in refused_file(
        folder, "name: x\nname: y\n"
    )
    assert "the key 'name' is given twice" in refused_file(folder, '{"name": "x", "name": "y"}', "p.json")


def test_not_a_number_is_no_json(folder: Path) -> None:
    assert "NaN is not JSON" in refused_file(folder, '{"name": NaN}', "p.json")


@pytest.mark.parametrize("content", ["", "# nothing\n", "just text", "- a\n- b\n", "42"])
def test_a_file_that_holds_no_mapping_is_refused(folder: Path, content: str) -> None:
    assert "a pipeline definition is a mapping" in refused_file(folder, content)
