"""What an operator does with runs, on a running service."""

from __future__ import annotations

import json
from typing import Any

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
