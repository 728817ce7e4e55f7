from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from techdeck_tasks.errors import DataProcessingError, ServiceUnavailableError, ValidationError
from techdeck_tasks.pipeline.registry import StageResult

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage, Web

RowsOf = Callable[[StageResult], pl.DataFrame]
FRAME = pl.DataFrame({"age": [36, 51], "name": ["Ada", "Bob"]})


def written(folder: Path, form: str) -> Path:
    path = folder / f"people.{form}"
    if form == "csv":
        FRAME.write_csv(path)
    elif form == "json":
        path.write_text(json.dumps(FRAME.to_dicts()))
    elif form == "jsonl":
        FRAME.write_ndjson(path)
    else:
        FRAME.write_parquet(path)
    return path


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_each_format_is_read(run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, form: str) -> None:
    result = run_stage("dataset_load", source=str(written(tmp_path, form)))
    assert rows_of(result).equals(FRAME)
    assert result.report["rows"] == 2
    assert result.report["format"] == form


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_each_format_is_read_over_http(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, web: Web, form: str
) -> None:
    web.answers[f"/people.{form}"] = (200, {}, written(tmp_path, form).read_bytes())
    assert rows_of(run_stage("dataset_load", source=f"{web.url}/people.{form}")).equals(FRAME)


def test_a_server_in_trouble_is_worth_a_retry(run_stage: RunStage, rows_of: RowsOf, web: Web) -> None:
    source = f"{web.url}/people.csv"
    web.answers["/people.csv"] = (503, {"Retry-After": "7"}, b"")
    with pytest.raises(ServiceUnavailableError) as caught:
        run_stage("dataset_load", source=source)
    assert caught.value.retry_at is not None
    web.answers["/people.csv"] = (200, {}, b"age\n1\n")
    assert rows_of(run_stage("dataset_load", source=source)).to_dicts() == [{"age": 1}]


def test_a_value_far_down_that_does_not_fit_the_first_rows_makes_its_column_text(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("age\n" + "1\n" * 20_000 + "unknown\n")
    frame = rows_of(run_stage("dataset_load", source=str(path)))
    assert frame.schema == {"age": pl.String}
    assert frame.height == 20_001


def test_a_file_without_a_header_gets_the_names_given(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("|note\n36;Ada\n?;Bob\n")
    params: dict[str, Any] = {
        "has_header": False,
        "columns": ["age", "name"],
        "separator": ";",
        "comment_prefix": "|",
        "null_values": ["?"],
        "dtypes": {"age": "float"},
    }
    frame = rows_of(run_stage("dataset_load", source=str(path), **params))
    assert frame.schema == {"age": pl.Float64, "name": pl.String}
    assert frame.rows() == [(36.0, "Ada"), (None, "Bob")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ragged.csv", b"a,b\n1,2\nJane Doe,2,3,4\n"),
        ("broken.jsonl", b'{"name": "Jane Doe"}\n{"name": \n'),
        ("broken.json", b'[{"name": "Jane Doe"'),
        ("broken.parquet", b"Jane Doe is no parquet"),
        ("binary.csv", b"a\n\xff\xfeJane Doe\n"),
    ],
)
def test_a_malformed_file_is_refused_without_a_word_of_it(
    run_stage: RunStage, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataProcessingError) as caught:
        run_stage("dataset_load", source=str(tmp_path / name))
    assert "Jane" not in str(caught.value.to_dict())
    assert caught.value.__cause__ is None


def test_an_empty_file_and_a_missing_one_are_named(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(ValidationError, match=r"empty\.csv is empty"):
        run_stage("dataset_load", source=str(tmp_path / "empty.csv"))
    with pytest.raises(ValidationError, match=r"there is no file .*none\.csv"):
        run_stage("dataset_load", source=str(tmp_path / "none.csv"))


def test_a_header_alone_is_a_data_set_without_rows(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("age,name\n")
    assert rows_of(run_stage("dataset_load", source=str(tmp_path / "a.csv"))).shape == (0, 2)


def test_a_star_in_a_file_name_is_a_star(run_stage: RunStage, rows_of: RowsOf, tmp_path: Path) -> None:
    (tmp_path / "a*.csv").write_text("age\n1\n")
    (tmp_path / "ab.csv").write_text("age\n2\n")
    assert rows_of(run_stage("dataset_load", source=str(tmp_path / "a*.csv"))).to_dicts() == [{"age": 1}]
