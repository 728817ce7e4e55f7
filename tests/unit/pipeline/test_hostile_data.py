"""Files made to break readers: each is read to the letter, or refused by name; none crashes a worker.

The files are not part of the project: TECHDECK_TEST_DATA names their folder (default ``../shared/data``).
Where it is missing, one test is reported as not run in the place of each collection.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.registry import StageResult

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

RowsOf = Callable[[StageResult], pl.DataFrame]

HOSTILE = (
    Path(os.environ.get("TECHDECK_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "hostile"
)

# A document, but no table: nothing in it has a name or a type, or one name or place has two.
NO_TABLE = {
    "y_array_empty.json",
    "y_array_heterogeneous.json",
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
    "y_object_empty.json",
    "y_structure_whitespace_array.json",
}


def files(pattern: str) -> list[Any]:
    found = sorted(HOSTILE.glob(pattern))
    if found:
        return [pytest.param(path, id=path.name) for path in found]
    reason = f"{HOSTILE / pattern} finds nothing; set TECHDECK_TEST_DATA"
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=pattern)]


def records_of(path: Path) -> list[dict[str, Any]]:
    document = json.loads(path.read_bytes())
    return [
        row if isinstance(row, dict) else {"value": row}
        for row in (document if isinstance(document, list) else [document])
    ]


@pytest.mark.parametrize("path", files("json_test_suite/n_*.json"))
def test_what_is_no_json_is_refused(run_stage: RunStage, path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        run_stage("dataset_load", source=str(path))
    assert caught.value.details["validation_rule"] != "table"


@pytest.mark.parametrize("path", files("json_test_suite/y_*.json"))
def test_what_is_json_is_read_and_keeps_its_values(run_stage: RunStage, rows_of: RowsOf, path: Path) -> None:
    if path.name in NO_TABLE:
        with pytest.raises(ValidationError, match="is not a table"):
            run_stage("dataset_load", source=str(path))
        return
    assert rows_of(run_stage("dataset_load", source=str(path))).to_dicts() == records_of(path)


@pytest.mark.parametrize(
    "path", [*files("json_test_suite/i_*.json"), *files("json_test_suite/test_transform/*.json")]
)
def test_where_readers_differ_nothing_changes_in_silence(
    run_stage: RunStage, rows_of: RowsOf, path: Path
) -> None:
    try:
        result = run_stage("dataset_load", source=str(path))
    except ValidationError as error:
        rules = {"duplicate_name", "encoding", "json_syntax", "depth", "number", "table"}
        assert error.details["validation_rule"] in rules  # noqa: PT017 - to refuse is as good as to read
        return
    if result.report["numbers_rounded"] or result.report["encoding"] != "utf-8":
        return  # flagged
    assert rows_of(result).to_dicts() == records_of(path)


@pytest.mark.parametrize("path", files("csv_spectrum/csvs/*.csv"))
def test_odd_csv_gives_the_rows_expected(run_stage: RunStage, rows_of: RowsOf, path: Path) -> None:
    expected = json.loads((HOSTILE / "csv_spectrum" / "json" / f"{path.stem}.json").read_bytes())
    expected = expected if isinstance(expected, list) else [expected]
    rows = rows_of(
        run_stage("dataset_load", source=str(path), infer_types=False, null_values=[], separator=",")
    ).to_dicts()
    if path.stem == "location_coordinates":
        # The collection's authors replaced the number in one of the two files only.
        for row in [*rows, *expected]:
            del row["Contact Phone Number"]
    assert rows == expected


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("path", files("blns/blns.json"))
def test_naughty_strings_pass_from_load_to_export_unharmed(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, path: Path, form: str
) -> None:
    strings = json.loads(path.read_bytes())
    loaded = rows_of(run_stage("dataset_load", source=str(path)))
    processed = rows_of(run_stage("data_processing", loaded, steps=[{"filter": "value IS NOT NULL"}]))
    target = tmp_path / f"out.{form}"
    run_stage(
        "export", processed, destination=str(target), **({"formula_guard": "off"} if form == "csv" else {})
    )
    text = {"null_values": [], "infer_types": False, "separator": ","} if form == "csv" else {}
    again = rows_of(run_stage("dataset_load", source=str(target), **text))
    assert again["value"].to_list() == strings
