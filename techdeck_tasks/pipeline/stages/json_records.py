"""JSON and JSON Lines by the letter of RFC 8259, as a file of one record a line that Polars can stream.

Python and Polars both take more than JSON is: NaN, infinities, doubled names, text after the end. For data of
patients a value must not change or vanish on its way in, so whatever is not plain is refused with its place.

A table is a list of objects; a list of plain values is a table of one column, `value`; a document that is no
list is a table of one row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from techdeck_tasks.errors import ValidationError

VALUE_COLUMN = "value"
MAX_DEPTH = 64
MAX_DOCUMENT_BYTES = 1 << 28
MAX_LINE_BYTES = 1 << 26
# Polars' widest integer.
_MAX_INTEGER = (1 << 127) - 1
_MAX_INTEGER_CHARS = 40
# 15 decimal digits always survive a double (IEEE 754), with sign, point and exponent 17 characters or less.
_SAFE_FLOAT_CHARS = 17
_SMALLEST_NORMAL = 2.2250738585072014e-308
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
        rounded: how many numbers have more digits than a double holds; they are read as the nearest one.
        kinds: by column, the kind of its values; a column has one.
    """

    rounded: int = 0
    kinds: dict[str, str] = field(default_factory=dict)
    _decoder: json.JSONDecoder = field(init=False)

    def __post_init__(self) -> None:
        # Once: json.loads would make one for every line.
        self._decoder = json.JSONDecoder(
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=self._float,
            object_pairs_hook=_object,
        )

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
        document = self._decoded(source.read_bytes(), "")
        records = document if isinstance(document, list) else [document]
        self._write(((f"record {index}", record) for index, record in enumerate(records)), target)

    def write_lines(self, source: Path, target: Path) -> None:
        """Read JSON Lines, UTF-8, in bounded memory, and write the records; empty lines are left out.

        Raises:
            ValidationError: as `write_document`; the text names the line, from 1.
        """

        def records() -> Iterator[tuple[str, Any]]:
            with source.open("rb") as file:
                number = 0
                while line := file.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if len(line) > MAX_LINE_BYTES:
                        raise _error(
                            "size", f"line {number} has more than {MAX_LINE_BYTES} bytes", "split the record"
                        )
                    if not line.isspace():
                        yield f"line {number}", self._decoded(line, f"line {number}: ")

        self._write(records(), target)

    def _write(self, records: Iterator[tuple[str, Any]], target: Path) -> None:
        with target.open("w", encoding="utf-8") as out:
            for place, record in records:
                row = record if isinstance(record, dict) else {VALUE_COLUMN: record}
                self._check(row, place)
                try:
                    out.write(_ENCODER.encode(row) + "\n")
                except UnicodeEncodeError:
                    raise _error(
                        "encoding", f"{place}: a text has half of a surrogate pair", "mend the source"
                    ) from None
        if not self.kinds:
            raise _error("table", "the source is not a table: no record has a field", "check the source")

    def _check(self, row: dict[str, Any], place: str) -> None:
        for name, value in row.items():
            kind = _KINDS[type(value)]
            known = self.kinds.setdefault(name, kind)
            if kind != known:
                if known == "null":
                    self.kinds[name] = kind
                elif kind != "null":
                    raise _error(
                        "table",
                        f"{place}: the source is not a table: a field is {kind} here and {known} before",
                        "give each field values of one type",
                    )
            if kind in ("list", "object") and _too_deep(value):
                raise _error("depth", f"{place} is nested deeper than {MAX_DEPTH}", "flatten it")

    def _decoded(self, data: bytes, where: str) -> Any:
        try:
            return self._decoder.decode(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise _error("encoding", f"{where}byte {error.start} is not UTF-8", "set encoding") from None
        except json.JSONDecodeError as error:
            raise _error(
                "json_syntax",
                f"{where}this is no JSON at line {error.lineno}, column {error.colno}: {error.msg}",
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
        if (len(text) > _SAFE_FLOAT_CHARS or abs(value) < _SMALLEST_NORMAL) and _is_rounded(text, value):
            self.rounded += 1
        return value


def _is_rounded(text: str, value: float) -> bool:
    if value == 0:
        return any(digit in "123456789" for digit in text.lower().partition("e")[0])
    return Decimal(text) != Decimal(repr(value))


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
