"""Lines of JSON that are taken as they are, next to the same lines looked at closely."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.sources.json_records import RecordWriter

DATA = Path(os.environ.get("TECHDECK_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
KNOWN: list[dict[str, Any]] = [
    {"n": 1, "x": 1.5, "t": "a", "b": True, 'é\\"': "ü", "none": None, "s": {"k": 1, "l": ["a"]}, "e": []},
    {"n": None, "x": 2, "t": None, "b": None, "s": {"l": None, "m": 0.5}, "l": [[1.5, None], []]},
]
NUMBERS = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
    st.floats(allow_nan=False).map(repr),
    st.floats(allow_nan=False).map(lambda value: f"{value:.17f}"[:40]),
    st.integers(-(2**64), 2**64).map(str),
    st.sampled_from(
        ["-0", "00", "-0.0", "0.50", "1.", ".5", "+1", "NaN", "1e5", "1E-400", "0e99", "0x1", "1_0"]
    ),
)
WORDS = st.text(st.sampled_from('a1:,"\\/{[\n\0\x7fü\u2028😀'), max_size=6)
TEXTS = st.one_of(
    WORDS.map(json.dumps),
    WORDS.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(
        ['"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"a\tb"', '"\\/"', '"', "'a'", '"1.2.840.10008.1.2"']
    ),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, TEXTS, st.sampled_from(["null", "true", "false", "True", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]"),
        st.lists(st.tuples(st.sampled_from(["k", "l", "m", "z"]), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"
        ),
    ),
    max_leaves=4,
)
CALM, ODD = st.sampled_from(["", "", " ", "\t"]), st.sampled_from(["", "", " ", "\r", "\f", "\ufeff"])
SHORT = st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,6})?([eE][-+]?[0-9]{1,2})?", fullmatch=True)
DECIMALS = st.one_of(SHORT, st.floats(-1e9, 1e9).map(repr))
FITTING = {
    "n": st.integers(-(10**18), 10**18).map(str),
    "x": DECIMALS,
    "t": TEXTS,
    "b": st.sampled_from(["true", "false", "null"]),
    'é\\"': TEXTS,
    "none": st.just("null"),
    "s": st.one_of(
        st.sampled_from(["null", "{}", '{"m" : 1}', '{ "k":1,"m":2.5 }']),
        st.builds('{{"k":{}, "l" : [{}]}}'.format, st.integers(), TEXTS),
    ),
    "e": st.just("[ ]"),
    "l": st.lists(st.one_of(st.just("null"), DECIMALS.map("[{}]".format))).map(
        lambda all_: f"[{','.join(all_)}]"
    ),
}


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Return a line: of fields that are known and fit, or with something about it that is odd."""
    odd = draw(st.sampled_from([False, False, True]))
    names = [name for name in FITTING if draw(st.booleans())]
    spaces = draw(st.sampled_from([CALM, ODD])) if odd else CALM
    if odd and draw(st.booleans()):
        names = draw(st.permutations([*names, *draw(st.sampled_from([[], ["n"], ["new"]]))]))
    pairs = []
    for name in names:
        value = draw(VALUES if odd and draw(st.booleans()) else FITTING.get(name, VALUES))
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        pairs.append(f"{draw(spaces)}{key}{draw(spaces)}:{draw(spaces)}{value}{draw(spaces)}")
    data = (draw(spaces) + "{" + ",".join(pairs) + "}" + draw(spaces)).encode("utf-8", "surrogatepass")
    if odd and draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at] + draw(st.sampled_from([b"", b",", b"}", b'"', b"\xff", b"\0", b"0"])) + data[at + 1 :]
        )
    return data.replace(b"\n", b"")


def read(writer: RecordWriter, data: bytes) -> tuple[Any, ...]:
    """Return what comes of lines: rows with their types and the count of rounded numbers, or the error."""
    try:
        records = b"".join(record for record, _ in writer.records(io.BytesIO(data)))
    except ValidationError as error:
        return (str(error), error.details)
    known = "".join(json.dumps(record) + "\n" for record in KNOWN).encode()
    try:
        schema = writer.schema(io.BytesIO(known + records))
        rows = pl.scan_ndjson(io.BytesIO(known + records), schema=schema).collect()
    except pl.exceptions.PolarsError as error:
        return (type(error),)
    return (rows.schema, str(rows.to_dicts()), writer.rounded, writer.kinds)


def writer_of_known() -> tuple[RecordWriter, pl.Schema]:
    writer = RecordWriter()
    text = "".join(json.dumps(record) + "\n" for record in KNOWN)
    records = b"".join(record for record, _ in writer.records(io.BytesIO(text.encode())))
    return writer, writer.schema(io.BytesIO(records))


@given(st.lists(lines(), min_size=1, max_size=4))
def test_a_line_taken_as_it_is_gives_what_a_close_look_gives(block: list[bytes]) -> None:
    data = b"\n".join(block) + b"\n"
    quick, schema = writer_of_known()
    quick.learn(schema)
    close, _ = writer_of_known()
    assert read(quick, data) == read(close, data)


@given(st.lists(lines(), min_size=1, max_size=4))
def test_lines_taken_as_they_are_have_the_types_known(block: list[bytes]) -> None:
    writer, schema = writer_of_known()
    writer.learn(schema)
    known = "".join(json.dumps(record) + "\n" for record in KNOWN).encode()
    for line in block:
        try:
            taken = [record for record, plain in writer.records(io.BytesIO(line + b"\n")) if plain]
        except ValidationError:
            continue
        found = writer.schema(io.BytesIO(b"".join([known, *taken])))
        assert list(found.items()) == list(schema.items())


def test_what_is_written_as_usual_is_taken_as_it_is() -> None:
    writer, schema = writer_of_known()
    writer.learn(schema)
    usual = [
        *map(json.dumps, KNOWN),
        json.dumps(KNOWN[0], separators=(",", ":")),
        '{"x": 0.30000000000000004}',
        '{"n": -5, "t": "1.2.840.10008.5.1.4.1.1.2"}\r',
        '{"x": 1e-05, "t": "\\u00e9\\n\\\\"}',
        "{}",
    ]
    data = "".join(f"{line}\n" for line in usual).encode()
    assert [plain for _, plain in writer.records(io.BytesIO(data))] == [True]


@pytest.mark.parametrize("verdict", ["y", "n", "i"])
def test_hostile_values_are_judged_alike(verdict: str) -> None:
    files = sorted((DATA / "hostile" / "json_test_suite").glob(f"{verdict}_*.json"))
    if not files:
        pytest.skip(f"{DATA}/hostile has no {verdict}_*.json; set TECHDECK_TEST_DATA")
    for path in files:
        value = path.read_bytes().replace(b"\n", b" ")
        for line in (value, b'{"t": %b}' % value, b'{"x": %b}' % value, b'{"l": %b}' % value):
            quick, schema = writer_of_known()
            quick.learn(schema)
            close, _ = writer_of_known()
            assert read(quick, line + b"\n") == read(close, line + b"\n"), path.name
