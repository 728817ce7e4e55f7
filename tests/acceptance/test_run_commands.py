"""What an operator does with runs, on a running service."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

DEFINITION = """
name: {name}
source: {{url: people.csv}}
{extra}
stages:
  - {{name: load, stage: dataset_load}}
  - {{name: process, stage: data_processing, needs: [load], params: {{steps: [{{select: [{column}]}}]}}}}
"""


def write(service: Any, name: str, column: str = "age", extra: str = "") -> str:
    (service.folder / "people.csv").write_text("name,age\nAda,36\nBob,51\n")
    text = DEFINITION.format(name=name, column=column, extra=extra)
    (service.folder / f"{name}.yaml").write_text(text)
    return f"{name}.yaml"


def read(service: Any, *arguments: str, code: int = 0) -> Any:
    run = service.techdeck(*arguments, "--json")
    assert run.returncode == code, run.stderr
    return json.loads(run.stdout)


def test_a_failed_run_is_listed_resumed_and_its_story_told(service: Any) -> None:
    failed = read(service, "run", write(service, "story", column="nosuch"), code=1)
    run_id = failed["run_id"]
    assert run_id in [run["run_id"] for run in read(service, "list")]
    resumed = read(service, "resume", run_id, "--reason", "try again")
    assert resumed == {"run_id": run_id, "stages": ["process"]}
    again = read(service, "watch", run_id, code=1)
    load, process = again["stages"]
    assert (load["generation"], process["generation"]) == (0, 1)
    assert load == failed["stages"][0]
    [entry] = read(service, "logs", run_id, "--limit", "1")
    assert entry["pipeline_id"] == run_id


def test_a_run_that_has_ended_is_not_cancelled(service: Any) -> None:
    run_id = read(service, "run", write(service, "ended"))["run_id"]
    refused = service.techdeck("cancel", run_id, "--reason", "too late")
    assert refused.returncode == 2
    assert "nothing to cancel" in refused.stderr


def test_every_problem_of_a_definition_is_told_at_once(techdeck: Any, tmp_path: Any) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: bad\nsource: {url: nosuch.csv}\nstages:\n"
        "  - {name: a, stage: dataset_laod}\n"
        "  - {name: b, stage: dataset_load, needs: [c], params: {separator: ';;'}}\n"
    )
    run = techdeck("validate", "bad.yaml", "--json")
    assert run.returncode == 2
    problems = "\n".join(json.loads(run.stdout)["problems"])
    for part in ("stages[0].stage", "stages[1].needs", "stages[1].params.separator", "source.url"):
        assert part in problems


def test_the_kinds_of_stages_are_listed_with_their_parameters(techdeck: Any) -> None:
    kinds = {one["stage"]: one for one in json.loads(techdeck("stages", "--json").stdout)}
    assert "separator" in kinds["dataset_load"]["params"]["properties"]
    table = techdeck("stages", "export").stdout
    assert "destination" in table
    assert "required" in table


CHECKED = """
name: {name}
source: {{url: aged.csv}}
stages:
  - {{name: load, stage: dataset_load}}
  - name: check
    stage: validation
    needs: [load]
    params: {{columns: {{age: {{ge: 0}}}}, max_bad_rows: {allowed}}}
"""


def check(service: Any, name: str, allowed: int, code: int) -> str:
    (service.folder / "aged.csv").write_text("name,age\nAda,36\n=Bob,-5\nEve,-7\n")
    (service.folder / f"{name}.yaml").write_text(CHECKED.format(name=name, allowed=allowed))
    return str(read(service, "run", f"{name}.yaml", code=code)["run_id"])


@pytest.mark.parametrize(("allowed", "code"), [(2, 0), (1, 1)], ids=["within the limit", "beyond the limit"])
def test_the_rows_that_a_stage_set_aside_are_shown_with_the_reasons(
    service: Any, allowed: int, code: int
) -> None:
    run_id = check(service, f"bad-{allowed}", allowed, code)
    shown = service.techdeck("rows", run_id, "check", "--bad")
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [
        {"_row": 1, "name": "=Bob", "age": -5, "_reasons": ["age.ge"]},
        {"_row": 2, "name": "Eve", "age": -7, "_reasons": ["age.ge"]},
    ]
    [entry] = read(service, "audit", "list", "--operation", "rows.read", "--limit", "1")
    assert entry["event_type"] == "operator_action"
    assert run_id in str(entry["document"])


def test_the_rows_of_a_stage_are_written_to_a_private_file_whole_or_not_at_all(service: Any) -> None:
    run_id = check(service, "kept", 2, 0)
    done = service.techdeck("rows", run_id, "check", "--output", "good.parquet", "--limit", "5")
    assert done.stderr == "1 row in good.parquet\n"
    assert pl.read_parquet(service.folder / "good.parquet").to_dicts() == [{"name": "Ada", "age": 36}]
    assert (service.folder / "good.parquet").stat().st_mode & 0o777 == 0o600
    service.techdeck("rows", run_id, "check", "--bad", "--output", "bad.csv")
    assert (
        service.folder / "bad.csv"
    ).read_text() == "_row,name,age,_reasons\n1,'=Bob,-5,age.ge\n2,Eve,-7,age.ge\n"
    assert [path.name for path in service.folder.glob(".good*")] == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("{run}", "nosuch"), "has no stage 'nosuch'; it has load, check"),
        (("{run}", "load", "--bad"), "stage 'load' has set no rows aside"),
        (("{run}", "check", "--output", "rows.xlsx"), "end it with .csv, .jsonl or .parquet"),
        (("{run}", "check", "--output", "nosuch/rows.csv"), "no file can be made in nosuch"),
        (("00000000-0000-4000-8000-000000000000", "check"), "there is no run"),
    ],
)
def test_rows_that_are_not_there_are_told_so(service: Any, arguments: tuple[str, ...], problem: str) -> None:
    run_id = check(service, "asked", 2, 0)
    refused = service.techdeck("rows", *(argument.format(run=run_id) for argument in arguments))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert problem in refused.stderr
