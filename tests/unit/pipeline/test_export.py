from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import polars as pl
import pytest
from pydantic import ValidationError as ParamsError

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.stages.export import ExportParams

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

PEOPLE = pl.DataFrame({"name": ["Ada", None], "age": [36, -1]})


@pytest.mark.parametrize(
    ("name", "read"), [("a.csv", pl.read_csv), ("a.jsonl", pl.read_ndjson), ("a.parquet", pl.read_parquet)]
)
def test_each_format_is_written(
    run_stage: RunStage, tmp_path: Path, name: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    target = tmp_path / "out" / name
    result = run_stage("export", PEOPLE, destination=str(target))
    assert read(target).equals(PEOPLE)
    assert result.report["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert result.report["size_bytes"] == target.stat().st_size
    assert (result.report["rows"], result.report["destination"]) == (2, str(target))


def test_exporting_twice_leaves_one_whole_file(run_stage: RunStage, tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.csv"
    for _ in range(2):
        run_stage("export", PEOPLE, destination=str(target))
    assert [path.name for path in target.parent.iterdir()] == ["a.csv"]


def test_a_url_of_fsspec_is_a_destination(run_stage: RunStage, tmp_path: Path) -> None:
    run_stage("export", PEOPLE, destination=f"memory://{tmp_path.name}/a.csv")
    assert fsspec.filesystem("memory").cat(f"/{tmp_path.name}/a.csv") == b"name,age\nAda,36\n,-1\n"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|'/c calc'!A1", "'+cmd|'/c calc'!A1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-2.5", "-2.5"),
        ("+49301234", "+49301234"),
        ("a=b", "a=b"),
        (" =1", " =1"),
        ("'quoted", "'quoted"),
        ("", ""),
        ("naïve 😀", "naïve 😀"),
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_is_defused(
    run_stage: RunStage, tmp_path: Path, cell: str, written: str
) -> None:
    target = tmp_path / "a.csv"
    result = run_stage("export", pl.DataFrame({"text": [cell], "n": [-1]}), destination=str(target))
    with target.open(newline="") as file:
        assert list(csv.reader(file)) == [["text", "n"], [written, "-1"]]
    assert result.report["cells_guarded"] == (cell != written)


def test_a_header_that_a_spreadsheet_would_run_is_defused(run_stage: RunStage, tmp_path: Path) -> None:
    run_stage("export", pl.DataFrame({"=1+1": [1]}), destination=str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_text() == "'=1+1\n1\n"


def test_the_guard_can_be_switched_off(run_stage: RunStage, tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["=1"]})
    run_stage("export", frame, destination=str(tmp_path / "a.csv"), formula_guard="off")
    assert (tmp_path / "a.csv").read_text() == "text\n=1\n"


def test_other_formats_keep_cells_as_they_are(run_stage: RunStage, tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["=1"]})
    run_stage("export", frame, destination=str(tmp_path / "a.parquet"))
    assert pl.read_parquet(tmp_path / "a.parquet").equals(frame)


def test_nested_columns_do_not_fit_csv(run_stage: RunStage, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="1 of 2 are"):
        run_stage("export", pl.DataFrame({"a": [[1]], "b": [1]}), destination=str(tmp_path / "a.csv"))
    assert not (tmp_path / "a.csv").exists()


def test_a_folder_that_cannot_be_written_is_named(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValidationError, match="cannot be made"):
        run_stage("export", PEOPLE, destination=str(tmp_path / "file" / "a.csv"))


def test_a_destination_needs_a_format() -> None:
    with pytest.raises(ParamsError, match="set format to csv, jsonl or parquet"):
        ExportParams.model_validate({"destination": "out.json"})
    assert ExportParams.model_validate({"destination": "out", "format": "csv"}).effective_format == "csv"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_file_that_is_there_can_be_kept(run_stage: RunStage, tmp_path: Path, place: str) -> None:
    target = str(tmp_path / "out" / "a.csv") if place == "local" else f"memory://{tmp_path.name}/kept.csv"
    for _ in range(2):
        run_stage("export", PEOPLE, destination=target, overwrite="refuse")
    with pytest.raises(ValidationError, match="another file is at"):
        run_stage("export", PEOPLE.head(1), destination=target, overwrite="refuse")
    with fsspec.open(target) as file:
        assert file.read() == b"name,age\nAda,36\n,-1\n"
    if place == "local":
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.csv"]
    run_stage("export", PEOPLE.head(1), destination=target)
    with fsspec.open(target) as file:
        assert file.read() == b"name,age\nAda,36\n"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("\ufeff=1", "'\ufeff=1"),
        ("\u200b@a", "'\u200b@a"),
        ("\x00=1", "'\x00=1"),
        ("\ufe66\u0031", "'\ufe66\u0031"),
        ("-5\n=1", "'-5\n=1"),
        ("-.5", "-.5"),
        ("-1,5", "-1,5"),
        ("-1.234,56", "-1.234,56"),
        ("+10%", "+10%"),
        ("a =1", "a =1"),
    ],
)
def test_a_formula_behind_what_a_reader_takes_away_is_escaped_and_a_number_of_any_country_is_not(
    run_stage: RunStage, tmp_path: Path, cell: str, written: str
) -> None:
    target = tmp_path / "a.csv"
    run_stage("export", pl.DataFrame({"x": [cell], "n": [-1]}), destination=str(target))
    with target.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["x", "n"], [written, "-1"]]


def test_a_column_that_csv_cannot_hold_is_an_error_of_the_definition(
    run_stage: RunStage, tmp_path: Path
) -> None:
    for values in ([b"x"], [timedelta(1)], [[1]]):
        with pytest.raises(ValidationError, match="CSV cannot hold"):
            run_stage("export", pl.DataFrame({"x": values}), destination=str(tmp_path / "a.csv"))


@pytest.mark.parametrize("overwrite", ["replace", "refuse"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_neither_replaced_nor_read(
    run_stage: RunStage, tmp_path: Path, overwrite: str, make: Callable[[Path], None]
) -> None:
    target = tmp_path / "a.csv"
    make(target)
    before = target.stat().st_ino
    with pytest.raises(ValidationError, match="is a folder or device, and no file; choose another"):
        run_stage("export", PEOPLE, destination=str(target), overwrite=overwrite)
    assert target.stat().st_ino == before


def test_a_link_is_replaced_and_not_followed(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "a.csv").symlink_to("old.csv")
    run_stage("export", PEOPLE, destination=str(tmp_path / "a.csv"))
    assert (tmp_path / "old.csv").read_text() == "old"
    assert not (tmp_path / "a.csv").is_symlink()


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.ZST", "memory://a/b.csv.gz"])
def test_what_would_not_be_compressed_is_not_named_so(name: str) -> None:
    with pytest.raises(ParamsError, match="export does not compress"):
        ExportParams(destination=name)


def test_no_folder_is_made_that_is_called_a_tilde() -> None:
    with pytest.raises(ParamsError, match="~ is no home folder: write it out"):
        ExportParams(destination="~/a.csv")


@pytest.mark.parametrize("value", [b"x", [b"x"], {"a": {"b": [b"x"]}}])
def test_bytes_in_json_are_refused_by_name(run_stage: RunStage, tmp_path: Path, value: Any) -> None:
    frame = pl.DataFrame({"a": [value], "b": [1]})
    with pytest.raises(ValidationError, match="JSON cannot hold bytes, and 1 columns have some"):
        run_stage("export", frame, destination=str(tmp_path / "a.jsonl"))
