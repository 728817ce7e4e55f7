from __future__ import annotations

import re
from pathlib import Path

import pytest

from techdeck_tasks.pipeline.registry import find_stage
from techdeck_tasks.pipeline.stages.bias_detection import Thresholds
from techdeck_tasks.pipeline.stages.data_processing import Step

TEXT = (Path(__file__).parents[3] / "docs" / "stages.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", TEXT, re.MULTILINE | re.DOTALL))
BUILT_IN = ["bias_detection", "data_processing", "dataset_load", "export", "file_upload", "validation"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_table_of_a_stage_has_its_parameters_and_no_other(name: str) -> None:
    table = SECTIONS[name].split("| parameter |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(
        find_stage(name).params.model_fields
    )


def test_every_step_and_threshold_is_named() -> None:
    steps = SECTIONS["data_processing"].split("| step |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", steps, re.MULTILINE)) == set(Step.model_fields)
    assert all(f"`{name}`" in SECTIONS["bias_detection"] for name in Thresholds.model_fields)


def test_the_example_of_an_own_stage_runs_and_is_no_built_in() -> None:
    (example,) = re.findall(r"```python\n(from pydantic.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {"__name__": "lab.stages"}
    exec(
        compile(example.replace('"head"', '"documented_head"'), "docs/stages.md", "exec", dont_inherit=True),
        names,
    )
    assert find_stage("documented_head").body is names["head"]
