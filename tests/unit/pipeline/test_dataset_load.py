from __future__ import annotations

import bz2
import gzip
import json
import lzma
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import polars as pl
import pytest
from pydantic import ValidationError as ParamsError

from techdeck_tasks.errors import DataProcessingError, ServiceUnavailableError, ValidationError
from techdeck_tasks.keyring import Cipher
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.definition import SourceSpec
from techdeck_tasks.pipeline.registry import StageContext, StageResult
from techdeck_tasks.pipeline.sources.csv_pieces import CsvFile
from techdeck_tasks.pipeline.sources.csv_scan import CsvParams, csv_scan
from techdeck_tasks.pipeline.sources.cut_file import Misfit
from techdeck_tasks.pipeline.sources.limits import MAX_COLUMNS
from techdeck_tasks.pipeline.sources.params import DatasetLoadParams
from techdeck_tasks.pipeline.stages.dataset_load import dataset_load

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage, Web

RowsOf = Callable[[StageResult], pl.DataFrame]
FRAME = pl.DataFrame({"age": [36, 51], "name": ["Ada", "Bob"]})


def written(folder: Path, form: str, frame: pl.DataFrame = FRAME) -> Path:
    path = folder / f"people.{form}"
    if form == "csv":
        frame.write_csv(path)
    elif form == "json":
        path.write_text(json.dumps(frame.to_dicts()))
    elif form == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
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
        ("binary.csv", b"a\n\xff\x00\x01\xfeJane Doe\n"),
        ("cut-off.parquet", b"PAR1Jane Doe is cut off"),
        ("corrupt.parquet", b"PAR1Jane Doe\xff\xff\xff\x7fPAR1"),
        ("cut-off.csv.gz", gzip.compress(b"name\n" + b"Jane Doe\n" * 99, mtime=0)[:-9]),
        ("damaged.csv.gz", gzip.compress(b"name\nJane Doe\n", mtime=0)[:15] + b"Jane Doe Jane Doe Jane Doe"),
    ],
)
def test_a_malformed_file_is_refused_without_a_word_of_it(
    run_stage: RunStage, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataProcessingError, ValidationError)) as caught:
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


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("cp1252", "cp1252"),
        ("latin-1", "cp1252"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_the_encoding_is_found_out(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, encoding: str, found: str, form: str
) -> None:
    people = [{"name": "Zoë Müller", "town": "Besançon"}, {"name": "José Nuñez", "town": "Århus"}]
    if form == "csv":
        text = "name,town\n" + "".join(f"{row['name']},{row['town']}\n" for row in people)
    elif form == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in people)
    else:
        text = json.dumps(people, ensure_ascii=False)
    path = tmp_path / f"people.{form}"
    path.write_bytes(text.encode(encoding))
    result = run_stage("dataset_load", source=str(path))
    assert rows_of(result).to_dicts() == people
    assert result.report["encoding"] == found


def test_the_encoding_can_be_told_and_a_wrong_one_is_refused_with_its_place(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\u0438\u043c\u044f\n\u0416\u0434\u0430\u043d\n".encode("cp1251"))
    frame = rows_of(run_stage("dataset_load", source=str(path), encoding="cp1251"))
    assert frame.to_dicts() == [{"\u0438\u043c\u044f": "\u0416\u0434\u0430\u043d"}]
    with pytest.raises(ValidationError, match="byte 0 of the source is not utf-8"):
        run_stage("dataset_load", source=str(path), encoding="utf-8")
    with pytest.raises(ParamsError, match="is no encoding"):
        run_stage("dataset_load", source=str(path), encoding="klingon")


def test_a_byte_that_is_not_utf8_far_down_is_found(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"name\n" + b"Ada\n" * 1_000_000 + "Zoë\n".encode("cp1252"))
    assert rows_of(run_stage("dataset_load", source=str(path)))["name"][-1] == "Zoë"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_the_dialect_is_found_out(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, separator: str, quote: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        f"name{separator}note\n"
        f"Ada{separator}{quote}a{separator} b,c{quote}\nBob{separator}{quote}d;e{quote}\n"
    )
    result = run_stage("dataset_load", source=str(path))
    assert rows_of(result).rows() == [("Ada", f"a{separator} b,c"), ("Bob", "d;e")]
    assert (result.report["separator"], result.report["quote"]) == (separator, quote)


def test_one_column_of_text_stays_one(run_stage: RunStage, rows_of: RowsOf, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name\nAda; Bob\nEve\n")
    assert rows_of(run_stage("dataset_load", source=str(path))).rows() == [("Ada; Bob",), ("Eve",)]


def test_spaces_are_trimmed_before_types_and_missing_values_are_looked_for(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("age, name , zip\n 36, Ada ,02139\n ?, ? ,10001\n")
    frame = rows_of(
        run_stage("dataset_load", source=str(path), trim=True, null_values=["?"], dtypes={"zip": "str"})
    )
    assert frame.schema == {"age": pl.Int64, "name": pl.String, "zip": pl.String}
    assert frame.rows() == [(36, "Ada", "02139"), (None, None, "10001")]


def test_text_keeps_its_zeros_where_types_are_not_inferred(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("zip,n\n02139,1\n")
    assert rows_of(run_stage("dataset_load", source=str(tmp_path / "a.csv"), infer_types=False)).rows() == [
        ("02139", "1")
    ]


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_a_compressed_source_is_unpacked_whatever_its_name(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, form: str
) -> None:
    content = gzip.compress(written(tmp_path, form).read_bytes())
    for name in (f"packed.{form}.gz", f"packed.{form}"):
        (tmp_path / name).write_bytes(content)
        assert rows_of(run_stage("dataset_load", source=str(tmp_path / name))).equals(FRAME)


def test_a_zstd_source_is_unpacked(run_stage: RunStage, rows_of: RowsOf, tmp_path: Path) -> None:
    pytest.importorskip("zstandard", reason="needs the extra zstd")
    FRAME.lazy().sink_csv(tmp_path / "a.csv.zst", compression="zstd")
    assert rows_of(run_stage("dataset_load", source=str(tmp_path / "a.csv.zst"))).equals(FRAME)
    pl.concat([FRAME] * 99).lazy().sink_csv(tmp_path / "b.csv.zst", compression="zstd")
    with pytest.raises(ValidationError, match="more than 20 bytes"):
        run_stage("dataset_load", source=str(tmp_path / "b.csv.zst"), max_bytes=20)
    packed = (tmp_path / "b.csv.zst").read_bytes()
    (tmp_path / "c.csv.zst").write_bytes(packed[:9] + b"Jane" + packed[13:])
    with pytest.raises(ValidationError, match="corrupt"):
        run_stage("dataset_load", source=str(tmp_path / "c.csv.zst"))


def test_a_bomb_is_refused_once_it_passes_the_limit(run_stage: RunStage, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"0" * 50_000_000))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ValidationError, match=r"bomb\.csv\.gz has more than 1000000 bytes"):
        run_stage("dataset_load", source=str(bomb), max_bytes=1_000_000)
    for left in tmp_path.glob("workspace-*/*/*"):
        assert left.stat().st_size <= 1_000_000


def test_a_remote_source_that_is_too_large_is_broken_off(
    run_stage: RunStage, tmp_path: Path, web: Web
) -> None:
    web.answers["/people.csv"] = (200, {}, b"age\n" + b"1\n" * 1_000_000)
    with pytest.raises(ValidationError, match="more than 1000 bytes"):
        run_stage("dataset_load", source=f"{web.url}/people.csv", max_bytes=1000)


def test_a_pattern_joins_files_of_the_same_columns_in_the_order_of_their_names(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    (tmp_path / "2.csv").write_text("name,age\nBob,5.5\n")
    (tmp_path / "1.csv").write_text("age,name\n36,Ada\n")
    result = run_stage("dataset_load", source=str(tmp_path / "*.csv"))
    assert rows_of(result).rows() == [(36.0, "Ada"), (5.5, "Bob")]
    assert result.report["files"] == 2
    (tmp_path / "3.csv").write_text("age,Jane Doe\n1,2\n")
    with pytest.raises(ValidationError, match="different columns") as caught:
        run_stage("dataset_load", source=str(tmp_path / "*.csv"))
    assert "Jane" not in str(caught.value.to_dict())
    with pytest.raises(ValidationError, match="no file matches"):
        run_stage("dataset_load", source=str(tmp_path / "*.jsonl"))


def test_a_pattern_works_on_a_remote_file_system(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a", "b"):
        memory.pipe(f"/{tmp_path.name}/{name}.csv", b"n\n1\n")
    assert rows_of(run_stage("dataset_load", source=f"memory://{tmp_path.name}/*.csv")).height == 2


def test_the_limit_counts_all_files_of_a_pattern(run_stage: RunStage, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("n\n" + "1\n" * 30)
    with pytest.raises(ValidationError, match="more than 100 bytes"):
        run_stage("dataset_load", source=str(tmp_path / "*.csv"), max_bytes=100)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{"a": NaN}\n', "line 2: this is no JSON: it has NaN, which JSON cannot express"),
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: the source is not a table: an object has a name twice"),
        (b'{"a": 1}\n{"a": }\n', "line 2, column 7: this is no JSON: Expecting value"),
        (b'{"a": 1}\n{"a": 1,\r\n', "line 2, column 9: this is no JSON: "),
        (b'{"a": 1}\n{"a": "Jane"}\n', "line 2: the source is not a table: a field is text here"),
        (b'{"a": 1e999}\n', "a number is beyond the range of a double"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}\n", "line 1 is nested deeper than 64"),
        (b'{"a": ' + b"[" * 200_000 + b"\n", "nested deeper than 64"),
        (b'{"a": "\\ud800"}\n', "line 1: a text has half of a surrogate pair"),
    ],
)
def test_json_lines_are_read_by_the_letter(
    run_stage: RunStage, tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValidationError) as caught:
        run_stage("dataset_load", source=str(tmp_path / "a.jsonl"))
    assert told in str(caught.value)
    assert "Jane" not in str(caught.value.to_dict())


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_fields_of_nested_objects_are_in_the_order_of_their_first_appearance(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, form: str
) -> None:
    records = [
        '{"p": {"k": 1, "l": 2}}',
        '{"p": {"l": 1, "m": [{"x": 1}], "k": 1}}',
        '{"p": {"m": [{"y": 1}]}}',
    ]
    text = "\n".join(records) if form == "jsonl" else f"[{','.join(records)}]"
    (tmp_path / f"a.{form}").write_text(text)
    rows = rows_of(run_stage("dataset_load", source=str(tmp_path / f"a.{form}")))
    inner = pl.List(pl.Struct({"x": pl.Int64, "y": pl.Int64}))
    assert rows.schema == {"p": pl.Struct({"k": pl.Int64, "l": pl.Int64, "m": inner})}
    assert rows["p"].to_list()[1] == {"k": 1, "l": 1, "m": [{"x": 1, "y": None}]}


def test_a_number_that_a_double_cannot_hold_is_counted(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 0.1}\n{"a": 1.000000000000000005}\n{"a": 1e-999}\n')
    assert run_stage("dataset_load", source=str(tmp_path / "a.jsonl")).report["numbers_rounded"] == 2


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_source_read_by_one_task_is_handed_on_in_parts_in_its_order(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, form: str
) -> None:
    people = pl.DataFrame({"n": range(1000), "name": [f"Zoë, {number}\n" for number in range(1000)]})
    path = written(tmp_path, form.removesuffix(".gz"), people)
    if form == "csv.gz":
        plain, path = path, path.with_name("people.csv.gz")
        path.write_bytes(gzip.compress(plain.read_bytes()))
    parted = run_stage("dataset_load", source=str(path), part_bytes=5000)
    whole = run_stage("dataset_load", source=str(path))
    assert isinstance(parted.output, ArtifactRef)
    assert isinstance(whole.output, ArtifactRef)
    assert len(parted.output.parts) > 3
    assert whole.output.parts == ()
    assert rows_of(parted).equals(people)
    assert rows_of(whole).equals(people)
    assert parted.report == whole.report


def test_a_source_without_rows_is_one_artifact_with_its_columns(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "none.csv"
    path.write_text("age,name\n")
    result = run_stage("dataset_load", source=str(path), part_bytes=1)
    assert rows_of(result).columns == ["age", "name"]
    assert result.report["rows"] == 0


def test_blank_lines_are_left_out_of_pieces_as_of_the_whole(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("age,name\n\n36,Ada\n,\n,Bob\n\n")
    whole = rows_of(run_stage("dataset_load", source=str(path)))
    scan = csv_scan(path, CsvParams())
    piece = scan.piece(path.read_bytes(), whole.schema, first=True)
    assert whole.to_dicts() == [{"age": 36, "name": "Ada"}, {"age": None, "name": "Bob"}]
    assert piece.equals(whole)


@pytest.mark.parametrize("part_bytes", [1 << 25, 20_000])
def test_a_quote_without_an_end_far_down_is_refused_and_no_row_is_lost_in_silence(
    run_stage: RunStage, tmp_path: Path, part_bytes: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n,v\n" + "1,1\n" * 10_500 + '1,"')
    with pytest.raises(DataProcessingError, match=r"line 10502 has a quote .* that has no end"):
        run_stage("dataset_load", source=str(path), part_bytes=part_bytes)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_long_texts_far_down_do_not_make_parts_large(
    run_stage: RunStage, store: ArtifactStore, tmp_path: Path, form: str
) -> None:
    notes = pl.DataFrame({"note": [f"{number:05}" * (1 if number < 3000 else 200) for number in range(4000)]})
    loaded = run_stage("dataset_load", source=str(written(tmp_path, form, notes)), part_bytes=200_000).output
    assert isinstance(loaded, ArtifactRef)
    sizes = [store.scan(part, tmp_path).collect().estimated_size() for part in loaded.parts]
    assert max(sizes) < 300_000


@pytest.mark.parametrize("cut", [1, 5, 2000])
def test_a_zstd_source_that_is_cut_off_is_refused_and_not_taken_for_all(
    run_stage: RunStage, tmp_path: Path, cut: int
) -> None:
    zstandard = pytest.importorskip("zstandard")
    packing = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    rows = b"age,n\n" + b"".join(b"%d,%d\n" % (n, n * 7919) for n in range(50_000))
    packed = packing.compress(rows) + packing.flush()
    path = tmp_path / "people.csv.zst"
    path.write_bytes(packed[:-cut])
    with pytest.raises(ValidationError, match="cut off"):
        run_stage("dataset_load", source=str(path))


def test_frames_of_zstd_one_after_the_other_and_skipped_ones_are_read(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    zstandard = pytest.importorskip("zstandard")
    compressor = zstandard.ZstdCompressor()
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0note"
    path = tmp_path / "people.csv.zst"
    path.write_bytes(compressor.compress(b"age\n1\n") + skipped + compressor.compress(b"2\n" * 100_000))
    assert rows_of(run_stage("dataset_load", source=str(path))).height == 100_001


def test_a_row_of_thousands_of_columns_is_read_in_bounded_memory(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "wide.csv"
    names = [f"c{n}" for n in range(6000)]
    blank = "," * (len(names) - 1)
    path.write_text("\n".join([",".join(names), ",".join("1" * len(names)), blank, ""]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rows_of(run_stage("dataset_load", source=str(path))).shape == (1, len(names))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_lines_that_end_with_a_carriage_return_alone_are_lines(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "old.csv"
    path.write_bytes(b"age,name\r36,Ada\r51,Bob\r")
    assert rows_of(run_stage("dataset_load", source=str(path))).equals(FRAME)


@pytest.mark.parametrize("content", [bytes(4096), b"PAR1\x15\x04\x15\0,\n"])
def test_a_file_of_zeros_or_of_a_program_is_no_table_without_rows(
    run_stage: RunStage, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValidationError, match="no CSV"):
        run_stage("dataset_load", source=str(path))


@pytest.mark.parametrize("text", ["20 €\n", "“Müller”,€uro\n", "5 µg,37 °C\n", "12 ± 3\n", "Köln, 3 ½ Öre\n"])
def test_a_little_western_text_is_not_taken_for_a_far_language(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(("note\n" + text).encode("cp1252"))
    result = run_stage("dataset_load", source=str(path), separator=";")
    assert result.report["encoding"] == "cp1252"
    assert rows_of(result)["note"].to_list() == [text.strip()]


def test_a_row_with_too_many_fields_is_named_and_not_shown(run_stage: RunStage, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('age,name\n36,"Ada\nL"\n51,Bob,secret\n')
    with pytest.raises(DataProcessingError, match="ends in line 4 has 3 fields, the first row 2") as caught:
        run_stage("dataset_load", source=str(path))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"dtypes": {"agee": "int"}}, "params.dtypes"),
        ({"columns": ["age"]}, "params.columns"),
        ({"columns": ["age", "name", "more"]}, "params.columns"),
    ],
)
def test_parameters_that_do_not_fit_the_columns_are_refused(
    run_stage: RunStage, tmp_path: Path, params: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        run_stage("dataset_load", source=str(written(tmp_path, "csv")), **params)
    assert caught.value.details["field"] == field


@pytest.mark.parametrize("separator", ["§", "\n", '"', "\0", "", ",,"])
def test_a_separator_that_cannot_be_is_refused_with_the_definition(separator: str) -> None:
    with pytest.raises(ParamsError):
        CsvParams(separator=separator)


@pytest.mark.parametrize(
    "records", ['[{"a":{"b":1}},{"a":{"b":"x"}}]', '[{"a":[1,"x"]}]', '[{"a":[{"b":1}]},{"a":[{"b":[]}]}]']
)
def test_a_nested_value_does_not_change_its_type_in_silence(
    run_stage: RunStage, tmp_path: Path, records: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(records)
    with pytest.raises(ValidationError, match="not a table"):
        run_stage("dataset_load", source=str(path))


def test_text_of_one_file_of_a_pattern_leaves_the_zeros_of_the_others(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    (tmp_path / "a-1.csv").write_text("code,n,flag\n01234,1,2\n")
    (tmp_path / "a-2.csv").write_text("code,n,flag\nx1,1.5,true\n")
    frame = rows_of(run_stage("dataset_load", source=str(tmp_path / "a-*.csv")))
    assert frame["code"].to_list() == ["01234", "x1"]
    assert frame["n"].to_list() == [1, 1.5]
    assert frame["flag"].to_list() == ["2", "true"]


def test_a_file_without_rows_does_not_make_the_numbers_of_others_text(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    (tmp_path / "a-1.csv").write_text("n\n")
    (tmp_path / "a-2.csv").write_text("n\n7\n")
    assert rows_of(run_stage("dataset_load", source=str(tmp_path / "a-*.csv")))["n"].to_list() == [7]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{}", "{}"),
        ("[{}, null]", ["{}", None]),
        ('{"x": {}, "y": 1}', {"x": "{}", "y": 1}),
    ],
)
def test_objects_without_a_field_anywhere_are_text(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, value: str, expected: object
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"id": 1, "more": {value}}}\n{{"id": 2, "more": null}}\n')
    assert rows_of(run_stage("dataset_load", source=str(path))).to_dicts() == [
        {"id": 1, "more": expected},
        {"id": 2, "more": None},
    ]


def test_empty_objects_are_objects_where_another_file_has_fields_in_them(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text('[{"more": {}}]')
    (tmp_path / "b.json").write_text('[{"more": {"k": 1}}]')
    rows = rows_of(run_stage("dataset_load", source=str(tmp_path / "*.json")))
    assert rows["more"].to_list() == [{"k": None}, {"k": 1}]


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("sep=;\na;b\n1;x\n", ";"),
        ('"sep=|"\r\na|b\r\n1|x\r\n', "|"),
        ("SEP=^\na^b\n1^x\n", "^"),
    ],
)
def test_the_first_line_of_excel_names_the_separator_and_is_no_row(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, text: str, separator: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    result = run_stage("dataset_load", source=str(path))
    assert result.report["separator"] == separator
    assert rows_of(result).rows(named=True) == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    "row",
    [
        r'1,"she said \"no\" twice"',
        r'1,"she said \"no, never\" twice"',
        r"1,no\, never",
    ],
)
def test_backslashes_before_quotes_and_separators_are_refused_by_name(
    run_stage: RunStage, tmp_path: Path, row: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n0,x\n{row}\n")
    with pytest.raises(DataProcessingError, match=r"line 3 .* backslashes escape nothing in CSV") as caught:
        run_stage("dataset_load", source=str(path))
    assert "never" not in str(caught.value)


def test_a_backslash_at_the_end_of_a_quoted_field_is_text(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"C:\\","D:\\"\n"say ""\\""""","x"\n')
    rows = rows_of(run_stage("dataset_load", source=str(path))).rows()
    assert rows == [("C:\\", "D:\\"), ('say "\\""', "x")]


@pytest.mark.parametrize("rows_before", [0, 20_000])
def test_a_number_beyond_the_range_of_a_double_is_text_and_not_infinite(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, rows_before: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("plate,n\n" + "2.5,1\n" * rows_before + "1E400,1\n2E5,0.5\n")
    rows = rows_of(run_stage("dataset_load", source=str(path))).tail(2).rows()
    assert rows == [("1E400", 1.0), ("2E5", 0.5)]


@pytest.mark.parametrize(("text", "dtype"), [("1E400", "float"), ("-1E39", "float32")])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_number_beyond_the_range_of_the_type_wanted_is_refused(
    run_stage: RunStage, tmp_path: Path, form: str, text: str, dtype: str
) -> None:
    path = tmp_path / f"a.{form}"
    path.write_text(f"a,b\n{text},1\n" if form == "csv" else f'{{"a": "{text}"}}\n')
    with pytest.raises(DataProcessingError, match=f"a number is beyond the range of {dtype}"):
        run_stage("dataset_load", source=str(path), dtypes={"a": dtype})


def test_infinity_that_is_written_so_is_read(run_stage: RunStage, rows_of: RowsOf, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n-inf,1\nInfinity,1\n1E3,1\n")
    rows = rows_of(run_stage("dataset_load", source=str(path), dtypes={"a": "float"}))
    assert rows["a"].to_list() == [float("-inf"), float("inf"), 1000.0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2.5", "9007199254740993"], 1),
        (["2.5", "9007199254740992", "18014398509481984"], 0),
        (["7", "9007199254740993"], 0),
    ],
)
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_numbers_that_a_column_of_doubles_rounds_are_counted(
    run_stage: RunStage, tmp_path: Path, form: str, values: list[str], expected: int
) -> None:
    path = tmp_path / f"a.{form}"
    objects = [f'{{"a": {value}}}' for value in values]
    texts = {
        "csv": "\n".join(["a,b", *(f"{value},1" for value in values)]),
        "json": f"[{','.join(objects)}]",
        "jsonl": "\n".join(objects),
    }
    path.write_text(texts[form])
    assert run_stage("dataset_load", source=str(path)).report["numbers_rounded"] == expected


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_digits_behind_the_point_that_a_double_does_not_hold_are_counted_in_json(
    run_stage: RunStage, tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"a.{form}"
    objects = [f'{{"a": {value}}}' for value in ("0.30000000000000004", "0.300000000000000041", "1e-400")]
    path.write_text("\n".join(objects) if form == "jsonl" else f"[{','.join(objects)}]")
    assert run_stage("dataset_load", source=str(path)).report["numbers_rounded"] == 2


def test_integers_that_become_doubles_far_down_are_counted_as_rounded(
    run_stage: RunStage, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 9007199254740993}\n' * 1000 + '{"a": 0.5}\n')
    assert run_stage("dataset_load", source=str(path)).report["numbers_rounded"] == 1000


def test_integers_of_one_file_that_join_doubles_of_another_are_counted_as_rounded(
    run_stage: RunStage, tmp_path: Path
) -> None:
    pl.DataFrame({"a": [9007199254740993, 1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"a": [0.5]}).write_parquet(tmp_path / "b.parquet")
    report = run_stage("dataset_load", source=str(tmp_path / "*.parquet")).report
    assert report["numbers_rounded"] == 1


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_dtypes_take_dates_by_iso_8601_alone(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path, form: str
) -> None:
    def source(value: str) -> str:
        path = tmp_path / f"a.{form}"
        path.write_text(f"a,b\n{value},1\n" if form == "csv" else f'{{"a": "{value}"}}\n')
        return str(path)

    rows = rows_of(run_stage("dataset_load", source=source("2020-02-01"), dtypes={"a": "date"}))
    assert rows["a"].to_list() == [date(2020, 2, 1)]
    with pytest.raises(DataProcessingError, match="type str cannot be converted to date"):
        run_stage("dataset_load", source=source("01/02/2020"), dtypes={"a": "date"})


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_dtypes_do_not_cut_fractions_off(run_stage: RunStage, tmp_path: Path, form: str) -> None:
    path = written(tmp_path, form, pl.DataFrame({"age": [36.0, 1.5]}))
    with pytest.raises(DataProcessingError, match="cannot be converted"):
        run_stage("dataset_load", source=str(path), dtypes={"age": "int"})


@pytest.mark.parametrize("row", ['1,"she said "no" twice"', '"x" ,1', '1,5" pipe'])
def test_a_quote_inside_a_field_that_is_not_doubled_is_refused_with_its_line(
    run_stage: RunStage, tmp_path: Path, row: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'a,b\n0,"x"\n{row}\n')
    with pytest.raises(DataProcessingError, match=r"line 3 has a quote inside a field .* doubled"):
        run_stage("dataset_load", source=str(path))


def test_zeros_further_down_are_refused_and_make_no_row(run_stage: RunStage, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n" + bytes(512))
    with pytest.raises(ValidationError, match=r"byte 8 of the source .* is zero"):
        run_stage("dataset_load", source=str(path))


def test_files_of_two_encodings_that_were_joined_are_refused(run_stage: RunStage, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("name,n\nMüller,1\n".encode() + "Göbel,2\n".encode("cp1252"))
    with pytest.raises(ValidationError, match="files of two encodings were joined"):
        run_stage("dataset_load", source=str(path))


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html>\n<p>Login</p>\n", "\n <html>\n", "<?xml version='1.0'?>\n"]
)
def test_a_page_of_the_web_is_no_table(run_stage: RunStage, tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValidationError, match="no CSV but a page of the web"):
        run_stage("dataset_load", source=str(path))


@pytest.mark.parametrize(
    ("content", "name"),
    [(bz2.compress(b"a"), "bzip2"), (lzma.compress(b"a"), "xz"), (b"PK\x03\x04" + bytes(30), "zip")],
)
@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_what_is_packed_in_another_way_is_named(
    run_stage: RunStage, tmp_path: Path, form: str, content: bytes, name: str
) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes(content)
    with pytest.raises(ValidationError, match=rf"is packed \({name}.*unpack it"):
        run_stage("dataset_load", source=str(path))


def test_columns_of_json_are_in_the_order_of_their_first_appearance(
    run_stage: RunStage, rows_of: RowsOf, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    names = [f"c{number}" for number in range(300)]
    path.write_text(json.dumps({"z": 1}) + "\n" + json.dumps(dict.fromkeys([*names, "z"], 1)) + "\n")
    assert rows_of(run_stage("dataset_load", source=str(path))).columns == ["z", *names]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_more_columns_than_memory_is_good_for_are_refused(
    run_stage: RunStage, tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"a.{form}"
    names = [f"c{number}" for number in range(MAX_COLUMNS + 1)]
    path.write_text(",".join(names) if form == "csv" else json.dumps(dict.fromkeys(names, 1)))
    with pytest.raises(ValidationError, match=rf"more than {MAX_COLUMNS} (columns|fields)"):
        run_stage("dataset_load", source=str(path))


@pytest.mark.parametrize("how", ["append", "replace"])
def test_a_file_that_changes_while_it_is_read_whole_is_refused(
    stage_context: StageContext, cipher: Cipher, tmp_path: Path, how: str
) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "other.csv"
    path.write_text("n\n1\n")
    other.write_text("n\n2\n")

    class Changing(ArtifactStore):
        def write(self, *args: Any, **options: Any) -> ArtifactRef:
            if how == "append":
                with path.open("a") as file:
                    file.write("2\n")
            else:
                other.replace(path)
            return super().write(*args, **options)

    store = Changing(str(tmp_path / "artifacts"), cipher)
    context = replace(stage_context, source=SourceSpec(url=str(path)), artifacts=store)
    with pytest.raises(ValidationError, match="was changed while it was read"):
        dataset_load(context, DatasetLoadParams())


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_float_that_is_asked_for_rounds_no_integer(run_stage: RunStage, tmp_path: Path, form: str) -> None:
    frame = pl.DataFrame({"x": [1] * 100 + [9007199254740993]})
    path = tmp_path / f"a.{form}"
    if form == "csv":
        frame.write_csv(path)
    elif form == "json":
        frame.write_json(path)
    elif form == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    with pytest.raises(DataProcessingError, match="a number is not held exactly by float"):
        run_stage("dataset_load", source=str(path), dtypes={"x": "float"})


def test_a_range_with_an_integer_that_a_float_would_round_is_left_to_who_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n9007199254740993\n")
    asked = CsvFile(path, DatasetLoadParams(dtypes={"x": "float"}))
    with pytest.raises(Misfit):
        asked.rows(0, path.stat().st_size)


def test_a_source_that_is_packed_twice_is_called_so(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(gzip.compress(b"a\n1\n")))
    with pytest.raises(ValidationError, match="is packed twice, one in the other; unpack it once"):
        run_stage("dataset_load", source=str(tmp_path / "a.csv.gz"))
