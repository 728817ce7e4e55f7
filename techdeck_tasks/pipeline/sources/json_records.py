"""JSON and JSON Lines by the letter of RFC 8259, as a file of one record a line that Polars can stream.

Python and Polars both take more than JSON is: NaN, infinities, doubled names, text after the end. For data of
patients a value must not change or vanish on its way in, so whatever is not plain is refused with its place.

A table is a list of objects; a list of plain values is a table of one column, `value`; a document that is no
list is a table of one row.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import polars as pl

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.sources.doubles import (
    MOST_EXACT_INTEGER,
    SAFE_CHARS,
    SMALLEST_NORMAL,
    has_long_integer,
    is_rounded,
)
from techdeck_tasks.pipeline.sources.field_order import FieldOrder
from techdeck_tasks.pipeline.sources.limits import MAX_COLUMNS
from techdeck_tasks.pipeline.sources.plain_lines import PlainLines

VALUE_COLUMN = "value"
_ELEMENT = "[]"
MAX_DEPTH = 64
MAX_DOCUMENT_BYTES = 1 << 28
MAX_LINE_BYTES = 1 << 26
_BLOCK_BYTES = 1 << 18
_LEARNED_RECORDS = 200
# Polars' widest integer.
_MAX_INTEGER = (1 << 127) - 1
_MAX_INTEGER_CHARS = 40
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "text",
    list: "list",
    dict: "object",
}


class _Refused(Exception):  # noqa: N818 - a verdict inside this module
    """What the decoder's hooks raise; the text says what is wrong, and `rule` names it."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


@dataclass(slots=True)
class RecordWriter:
    """Checks records and writes them one a line.

    Attributes:
        rounded: how many decimals have more digits than a double holds; they are read as the nearest one.
        long_integers: by place, how many integers looked at closely are not whole as a double.
        kinds: by place (a column, and the names inside of it), the kind of its values; a place has one.
        plain: tells the lines that can be taken as they are; None: none is.
        order: of the fields of objects in records.
    """

    rounded: int = 0
    long_integers: Counter[tuple[str, ...]] = field(default_factory=Counter)
    kinds: dict[tuple[str, ...], str] = field(default_factory=dict)
    plain: PlainLines | None = None
    order: FieldOrder = field(default_factory=FieldOrder)
    _learned: pl.Schema | None = None
    _decoder: json.JSONDecoder = field(init=False)

    def __post_init__(self) -> None:
        # Once: json.loads would make one for every line.
        self._decoder = json.JSONDecoder(
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=self._float,
            object_pairs_hook=_object,
        )

    def continued(self) -> RecordWriter:
        """Return another that knows the columns as this one does, for records further down."""
        return RecordWriter(kinds=dict(self.kinds), plain=self.plain, order=deepcopy(self.order))

    def write_document(self, source: Path, target: Path) -> None:
        """Read one JSON document, UTF-8, and write its records.

        Raises:
            ValidationError: no JSON, no table, or larger than `MAX_DOCUMENT_BYTES`.
        """
        size = source.stat().st_size
        if size > MAX_DOCUMENT_BYTES:
            raise _error(
                "size",
                f"one JSON document may have {MAX_DOCUMENT_BYTES} bytes, not {size}",
                "hand it over as JSON Lines, which is read in a stream",
            )
        document = self._decoded(source.read_bytes())
        records = document if isinstance(document, list) else [document]
        with target.open("wb") as out:
            out.writelines(self._record(record, f"record {index}") for index, record in enumerate(records))
        self._require_field()

    def write_lines(self, source: Path, target: Path) -> None:
        """Read JSON Lines, UTF-8, in bounded memory, and write the records; empty lines are left out.

        Raises:
            ValidationError: as `write_document`; the text names the line, from 1.
        """
        with source.open("rb") as lines, target.open("wb") as out:
            out.writelines(self.learning(lines))
        self._require_field()

    def learning(self, lines: BinaryIO) -> Iterator[bytes]:
        """Yield checked records as `records` does, and learn from the first what is plain.

        Raises:
            As `records`.
        """
        records = self.records(lines)
        first = [record for record, _ in islice(records, _LEARNED_RECORDS)]
        yield from first
        with suppress(pl.exceptions.PolarsError):  # who reads the records meets it again, and tells it
            self.learn(self.schema(io.BytesIO(b"".join(first))))
        for record, _ in records:
            yield record

    def schema(self, records: Path | BinaryIO) -> pl.Schema:
        """Return the columns of records that were written here; they are all looked at.

        Raises:
            PolarsError: they are no table to Polars.
        """
        found = pl.scan_ndjson(records, infer_schema_length=None).collect_schema()
        # Polars' own order is that of a hash table, another one in each process.
        names = [name for name, *inner in self.kinds if not inner]
        return self.order.schema(pl.Schema({name: found[name] for name in names if name in found}))

    def rounded_in(self, records: Path, schema: pl.Schema) -> int:
        """Return how many numbers are rounded where records written here are read as this schema."""
        now = dict(_places(schema))
        known = dict(_places(self._learned or schema))
        close = self
        if any(dtype == pl.Float64 and known.get(place) == pl.Int64 for place, dtype in now.items()):
            # Plain lines had integers in columns that became doubles.
            with records.open("rb") as file:
                if has_long_integer(iter(lambda: file.read(_BLOCK_BYTES), b"")):
                    file.seek(0)
                    close = RecordWriter()
                    for _ in close.records(file):
                        pass
        return self.rounded + close.rounded_integers(schema)

    def rounded_integers(self, schema: pl.Schema) -> int:
        """Return how many of the integers looked at closely are rounded when read as this schema."""
        doubles = {place for place, dtype in _places(schema) if dtype == pl.Float64}
        return sum(count for place, count in self.long_integers.items() if place in doubles)

    def learn(self, schema: pl.Schema) -> None:
        """Take lines as they are from here on that are plain by these columns."""
        self.plain = PlainLines.of(schema)
        self._learned = schema

    def records(self, lines: BinaryIO) -> Iterator[tuple[bytes, bool]]:
        """Yield checked records, one or several with a line feed after each, and whether they are plain.

        Raises:
            ValidationError: as `write_lines`; but records without a field are none.
        """
        number = 0
        while block := lines.read(_BLOCK_BYTES):
            block += lines.readline(MAX_LINE_BYTES + 1)
            plain = self._plain_in(block)
            at = 0
            while at < len(block):
                end = plain.end(block, at) if plain else at
                if end > at:
                    yield block[at:end], True
                    number += block.count(b"\n", at, end)
                    at = end
                    continue
                at = block.find(b"\n", end) + 1 or len(block)
                line = block[end:at]
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise _error(
                        "size", f"line {number} has more than {MAX_LINE_BYTES} bytes", "split the record"
                    )
                if not line.isspace():
                    record = self._decoded(line.rstrip(b"\r\n"), number)
                    yield self._record(record, f"line {number}"), False

    def _plain_in(self, block: bytes) -> PlainLines | None:
        """Return the pattern where it may be used: in UTF-8, on lines that are not too long for it."""
        if self.plain is None or len(block) > 2 * _BLOCK_BYTES:
            return None
        try:
            text = block.decode()
        except UnicodeDecodeError:
            return None
        return self.plain if self.plain.numbers_are_kept(text) else None

    def _record(self, record: Any, place: str) -> bytes:
        row = record if isinstance(record, dict) else {VALUE_COLUMN: record}
        self._check(row, place)
        try:
            return f"{_ENCODER.encode(row)}\n".encode()
        except UnicodeEncodeError:
            raise _error(
                "encoding", f"{place}: a text has half of a surrogate pair", "mend the source"
            ) from None

    def _require_field(self) -> None:
        if not self.kinds:
            raise _error("table", "the source is not a table: no record has a field", "check the source")

    def _check(self, row: dict[str, Any], place: str) -> None:
        for name, value in row.items():
            kind = self._one_kind((name,), value, place)
            if kind in ("list", "object"):
                if _too_deep(value):
                    raise _error("depth", f"{place} is nested deeper than {MAX_DEPTH}", "flatten it")
                self._check_inside((name,), value, place)
                self.order.see_field(name, value)
        if len(self.kinds) > MAX_COLUMNS:
            raise _error(
                "table", f"{place}: there are more than {MAX_COLUMNS} fields", "give each value a row"
            )

    def _one_kind(self, where: tuple[str, ...], value: Any, place: str) -> str:
        kind = _KINDS[type(value)]
        if type(value) is int and abs(value) > MOST_EXACT_INTEGER and int(float(value)) != value:
            self.long_integers[where] += 1
        known = self.kinds.setdefault(where, kind)
        if kind != known:
            if known == "null":
                self.kinds[where] = kind
            elif kind != "null":
                raise _error(
                    "table",
                    f"{place}: the source is not a table: a field is {kind} here and {known} before",
                    "give each field values of one type",
                )
        return kind

    def _check_inside(self, where: tuple[str, ...], value: dict[str, Any] | list[Any], place: str) -> None:
        """Check what is nested, of which Polars would make text where kinds differ."""
        inner = value.items() if isinstance(value, dict) else ((_ELEMENT, each) for each in value)
        for name, each in inner:
            deeper = (*where, name)
            if self._one_kind(deeper, each, place) in ("list", "object"):
                self._check_inside(deeper, each, place)

    def _decoded(self, data: bytes, line: int | None = None) -> Any:
        """Return the value of a document, or of the `line` of that number."""
        where = "" if line is None else f"line {line}: "
        try:
            return self._decoder.decode(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise _error("encoding", f"{where}byte {error.start} is not UTF-8", "set encoding") from None
        except json.JSONDecodeError as error:
            at = (error.lineno, error.colno) if line is None else (line, error.pos + 1)
            place = "line {}, column {}".format(*at)
            raise _error(
                "json_syntax",
                f"{place}: this is no JSON: {error.msg}",
                "mend the source",
            ) from None
        except RecursionError:
            raise _error(
                "depth", f"{where}the JSON is nested deeper than {MAX_DEPTH}", "flatten it"
            ) from None
        except _Refused as refused:
            raise _error(refused.rule, f"{where}{refused}", "mend the source") from None

    def _float(self, text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise _Refused("number", "a number is beyond the range of a double; quote it as text")
        if (len(text) > SAFE_CHARS or abs(value) < SMALLEST_NORMAL) and is_rounded(text, value):
            self.rounded += 1
        return value


def _integer(text: str) -> int:
    # The length first: Python takes quadratic time for a long one.
    if len(text) > _MAX_INTEGER_CHARS or abs(value := int(text)) > _MAX_INTEGER:
        raise _Refused("number", "an integer has more than 128 bits; quote it as text")
    return value


def _no_constant(name: str) -> NoReturn:
    raise _Refused("json_syntax", f"this is no JSON: it has {name}, which JSON cannot express; use null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("duplicate_name", "the source is not a table: an object has a name twice")
    return found


def _places(schema: pl.Schema) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each place of a table and its type, as `RecordWriter` names it."""
    pending: list[tuple[tuple[str, ...], Any]] = [((name,), dtype) for name, dtype in schema.items()]
    while pending:
        where, dtype = pending.pop()
        yield where, dtype
        if isinstance(dtype, pl.Struct):
            pending += [((*where, inner.name), inner.dtype) for inner in dtype.fields]
        elif isinstance(dtype, pl.List):
            pending.append(((*where, _ELEMENT), dtype.inner))


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _error(rule: str, reason: str, remedy: str) -> ValidationError:
    return ValidationError(f"{reason}; {remedy}", field="source", validation_rule=rule)
