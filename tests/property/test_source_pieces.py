"""A source that several tasks read, next to the same source read by one: rows, types, report and errors."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.definition import SourceSpec
from techdeck_tasks.pipeline.registry import StageContext, StageResult, find_stage
from techdeck_tasks.pipeline.runs.parts import MAX_PARTS

CELLS = st.one_of(
    st.sampled_from(
        ["", "1", "-7", "0.5", "1e3", "true", "a", "ü", "x y", '"a,b"', '"two\nlines"', '""', '"q""q"']
    ),
    st.integers(-100, 100).map(str),
)
ODD_CELLS = st.sampled_from(
    [
        "7.5",
        "old",
        '"',
        "'",
        "é",
        "1\n\n",
        "a,b",
        "\r",
        "9" * 20,
        r'"x\"y"',
        "1E400",
        "9007199254740993",
        "0.12345678901234567",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.sampled_from([0.5, 1e-7, 0.1 + 0.2, 2**63, "a", "ü\n", True, "12:30"]),
)
FIELDS = st.one_of(
    st.sampled_from(
        [None, [], [1], [None, 2.5], [[1]], ["a"], {}, {"k": 1}, {"l": "b", "k": None}, {"k": 2.5}]
    ),
    SCALARS,
)
ODD_LINES = st.sampled_from(
    [
        *("", " ", "{}", "[1]", "7", "{", '{"a": 1,}', '{"a": 1, "a": 1}', '{"a": NaN}', '{"n": 1}\r'),
        *('{"new": 1}', '{"n": 0.5}', '{"n": "text"}', '{"t": "\\ud800"}', '\ufeff{"n": 1}'),
        '{"n": 1.00000000000000000001}',
        '{"n": 9007199254740993}',
    ]
)
quick = settings(max_examples=30)
heavy = settings(quick, max_examples=10)


@st.composite
def csv_texts(draw: st.DrawFn, widths: st.SearchStrategy[int] = st.integers(1, 3)) -> str:  # noqa: B008 - a strategy
    """Return CSV of a few columns, each of values of one kind but for some that are odd."""
    columns = draw(widths)
    kinds = [draw(st.sampled_from([st.integers(0, 9).map(str), CELLS])) for _ in range(columns)]
    rows = draw(st.lists(st.tuples(*kinds), min_size=1, max_size=40))
    lines = [",".join(f"c{number}" for number in range(columns)), *map(",".join, rows)]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(1, len(lines))), draw(ODD_CELLS))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


@st.composite
def json_lines(draw: st.DrawFn, fields: st.SearchStrategy[Any] = FIELDS, names: Sequence[str] = ()) -> str:
    """Return JSON Lines of a few fields, or those named, each of one kind of values but for a few."""
    names = names or draw(
        st.lists(st.sampled_from(["n", "t", "ü", "a"]), min_size=1, max_size=3, unique=True)
    )
    kinds = {
        name: draw(st.sampled_from([st.integers(-9, 9), st.floats(-9, 9), st.text("aü\n"), fields]))
        for name in names
    }
    records = draw(st.lists(st.fixed_dictionaries({}, optional=kinds), min_size=1, max_size=30))
    lines = [
        json.dumps(record, ensure_ascii=draw(st.booleans())) for record in [dict.fromkeys(names), *records]
    ]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(ODD_LINES))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


@st.composite
def tables(draw: st.DrawFn, widths: st.SearchStrategy[int] = st.integers(1, 4)) -> pl.DataFrame:  # noqa: B008 - as above
    """Return a table of a few columns, up to a hundred rows."""
    kinds: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
        "n": draw(
            st.sampled_from(
                [
                    (pl.Int64, st.integers(-9, 9)),
                    (pl.Int8, st.integers(-9, 9)),
                    (pl.Float64, st.floats(-9, 9)),
                ]
            )
        ),
        "t": (pl.String, st.text("aü\n1", max_size=5)),
        "l": (pl.List(pl.Int64), st.lists(st.integers(-9, 9), max_size=3)),
        "s": (pl.Struct({"k": pl.Boolean}), st.fixed_dictionaries({"k": st.booleans()})),
    }
    names = ["n", *draw(st.permutations(["t", "l", "s"]))][: draw(widths)]
    height = draw(st.integers(0, 100))
    some = {name: draw(st.lists(st.none() | kinds[name][1], min_size=1, max_size=7)) for name in names}
    return pl.DataFrame(
        {name: (values * height)[:height] for name, values in some.items()},
        schema={name: kinds[name][0] for name in names},
    )


def parquet(table: pl.DataFrame, group_rows: int) -> bytes:
    table.write_parquet(file := io.BytesIO(), row_group_size=group_rows, data_page_size=64)
    return file.getvalue()


def note(what: str) -> None:
    """Count for `--hypothesis-show-statistics`, which tells whether the examples are worth something."""
    if currently_in_test_context():
        event(what)


class Reading:
    """Reads what lies in a folder, whole and in pieces."""

    def __init__(self, folder: Path, pattern: str, **params: Any) -> None:
        self.folder = folder
        self.kind = find_stage("dataset_load")
        self.params = self.kind.params.model_validate(params)
        self.context = StageContext(
            run_id="run",
            stage="load",
            attempt=0,
            source=SourceSpec(url=str(folder / pattern)),
            inputs={},
            artifacts=ArtifactStore(str(folder / "artifacts"), Cipher(KeySet("k", {"k": bytes(32)}))),
            workspace=folder,
        )

    def whole(self) -> tuple[Any, ...]:
        return self._told("whole", lambda context: self.kind.body(context, self.params))

    def parted(self) -> tuple[Any, ...]:
        return self._told("parted", self._joined)

    def _joined(self, context: StageContext) -> StageResult:
        partitioning = self.kind.partitioning
        assert partitioning is not None
        assert partitioning.part is not None
        pieces = partitioning.pieces(context, self.params)
        note(f"{min(len(pieces), 3)} pieces or more")
        if not 1 < len(pieces) <= MAX_PARTS:
            return self.kind.body(context, self.params)
        parts = []
        for number, piece in enumerate(json.loads(json.dumps(pieces))):
            part = replace(context, stage=f"load~{number}", piece=piece)
            result = partitioning.part(part, self.params)
            assert not isinstance(result.output, ArtifactRef)
            output = None if result.output is None else part.write(result.output)
            parts.append(StageResult(output, result.report))
        note("misfits" if any(part.report["misfits"] for part in parts) else "all fit")
        return partitioning.join(context, self.params, parts)

    def _told(self, name: str, read: Callable[[StageContext], StageResult]) -> tuple[Any, ...]:
        (workspace := self.folder / name).mkdir()
        context = replace(self.context, workspace=workspace)
        try:
            result = read(context)
        except TechDeckError as error:
            # What is written as one file is read while it is written, and an error names either.
            return (type(error), str(error).partition(" failed: ")[2] or str(error))
        output = result.output
        assert isinstance(output, ArtifactRef)
        (opened := self.folder / f"{name}-opened").mkdir()
        rows = context.artifacts.scan(output, opened).collect()
        return (rows.schema, rows.rows(), dict(result.report))


def check(suffix: str, files: list[bytes], **params: Any) -> None:
    """Write the files, and compare what comes of them whole and in pieces."""
    with tempfile.TemporaryDirectory() as name:
        for number, content in enumerate(files):
            (Path(name) / f"{number:03}.{suffix}").write_bytes(content)
        whole = Reading(Path(name), f"*.{suffix}", **params).whole()
        parted = Reading(Path(name), f"*.{suffix}", **params).parted()
        if isinstance(whole[0], pl.Schema):
            assert list(parted[0].items()) == list(whole[0].items())
        assert parted == whole


@quick
@given(csv_texts(), st.integers(1, 40), st.booleans())
def test_csv_in_pieces_is_what_it_is_whole(text: str, part_bytes: int, infer: bool) -> None:
    check("csv", [text.encode()], part_bytes=part_bytes, infer_types=infer)


@quick
@given(json_lines(), st.integers(1, 60))
def test_json_lines_in_pieces_are_what_they_are_whole(text: str, part_bytes: int) -> None:
    check("jsonl", [text.encode()], part_bytes=part_bytes)


@quick
@given(
    tables(), st.integers(20, 400), st.integers(1, 30), st.sampled_from([{}, {"n": "float"}, {"t": "int"}])
)
def test_parquet_in_pieces_is_what_it_is_whole(
    table: pl.DataFrame, part_bytes: int, group_rows: int, dtypes: dict[str, str]
) -> None:
    check("parquet", [parquet(table, group_rows)], part_bytes=part_bytes, dtypes=dtypes)


def test_parquet_that_is_cut_off_is_refused_with_pieces_as_without() -> None:
    content = parquet(pl.DataFrame({"n": range(1000)}), 100)
    for size in (len(content) - 1, len(content) // 2, 9, 3):
        check("parquet", [content[:size]], part_bytes=20)
    check(
        "parquet",
        [content[: len(content) // 2] + b"\0" * 8 + content[len(content) // 2 + 8 :]],
        part_bytes=20,
    )


@quick
@given(st.lists(csv_texts(st.just(2)), min_size=2, max_size=4), st.integers(20, 60))
def test_several_files_of_csv_in_pieces_are_what_they_are_whole(texts: list[str], part_bytes: int) -> None:
    check("csv", [text.encode() for text in texts], part_bytes=part_bytes)


@quick
@given(
    st.permutations(["a,b", "b,a", "a,b", "b,a"]),
    st.lists(CELLS, min_size=4, max_size=4),
    st.integers(20, 90),
)
def test_files_of_csv_with_other_types_and_orders_are_joined_in_pieces_as_without(
    headers: list[str], cells: list[str], part_bytes: int
) -> None:
    texts = [f"{header}\n" + f"1,{cell}\n" * 9 for header, cell in zip(headers, cells, strict=True)]
    check("csv", [text.encode() for text in texts], part_bytes=part_bytes)


@quick
@given(st.lists(json_lines(SCALARS, ("n", "t")), min_size=2, max_size=3), st.integers(20, 200))
def test_several_files_of_json_lines_in_pieces_are_what_they_are_whole(
    texts: list[str], part_bytes: int
) -> None:
    check("jsonl", [text.encode() for text in texts], part_bytes=part_bytes)


@quick
@given(
    st.lists(st.tuples(tables(st.sampled_from([1, 4])), st.integers(5, 50)), min_size=2, max_size=3),
    st.integers(500, 2000),
)
def test_several_files_of_parquet_in_pieces_are_what_they_are_whole(
    files: list[tuple[pl.DataFrame, int]], part_bytes: int
) -> None:
    check("parquet", [parquet(*file) for file in files], part_bytes=part_bytes)


@pytest.mark.parametrize(
    "odd", ["", "n,v\n", "n,w\n1,2\n", "n\n1\n"], ids=["empty", "header", "other", "fewer"]
)
def test_one_odd_file_among_many_is_what_it_is_whole(odd: str) -> None:
    files = [b"n,v\n" + f"{number},2\n".encode() * 20 for number in range(20)]
    check("csv", [*files, odd.encode(), *files], part_bytes=200)


@heavy
@given(st.lists(CELLS | ODD_CELLS, max_size=6), st.sampled_from(["1", "1.5", "", "a"]))
def test_csv_that_is_other_than_its_beginning_is_what_it_is_whole(late: list[str], usual: str) -> None:
    lines = ["n,v", *[f"{number},{usual}" for number in range(10_500)], *[f"1,{value}" for value in late]]
    check("csv", ["\n".join(lines).encode()], part_bytes=30_000)


@heavy
@given(
    json_lines(SCALARS),
    st.sampled_from(['{"n": 1, "t": "a"}', '{"n": null, "a": [1]}', '{"a": {"k": 1}}', "{}"]),
)
def test_json_lines_that_are_other_than_their_beginning_are_what_they_are_whole(
    text: str, usual: str
) -> None:
    beginning = f"{usual[:-1]:<1000}{usual[-1]}\n" * 2200
    check("jsonl", [f"{beginning}{text}".encode()], part_bytes=1_000_000)


@pytest.mark.parametrize("content", [b"n,v\n1,\xe9\n" * 9, b"n,v\n" + b"1,a\n" * 99 + b"1,\xe9\n"])
def test_another_encoding_is_found_out_with_pieces_as_without(content: bytes) -> None:
    check("csv", [content], part_bytes=20)
