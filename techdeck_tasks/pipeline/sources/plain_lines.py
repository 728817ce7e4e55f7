"""Lines of JSON that need no closer look: they are JSON by the letter, and as the columns known suppose.

A pattern is made of the columns' names and types. It matches a line only where RFC 8259 does too, each name
is there once at most, and each value is null or what its column's type was inferred from. A line that it does
not match may be as good: it is looked at closely, which takes ten times as long.
"""

from __future__ import annotations

import json
import re
from typing import Any

import polars as pl

_MOST_FIELDS = 1000
"""A pattern of more would take a second to be made."""

# No group repeats without giving back (`(?:...)*+`): Python before 3.11.5 gets that wrong.
_SPACE = r"[ \t]*+"
_PLAIN_TEXT = r'[^"\\\x00-\x1f]*+'
# No half of a surrogate pair, nor a whole one.
_ESCAPE = r'\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))'
_TEXT = rf'"{_PLAIN_TEXT}(?:{_ESCAPE}{_PLAIN_TEXT})*"'
# What fits into 64 bits whatever its digits are; -0 is no integer to every reader.
_INTEGER = r"(?:0|-?[1-9][0-9]{0,17}+)"
# What a double holds whatever its digits are.
_SHORT_INTEGER = r"(?:0|-?[1-9][0-9]{0,14}+(?![0-9]))"
# With an exponent so short that it is one double; without one `numbers_are_kept` looks at it.
_FLOAT = r"-?(?:(?:0|[1-9][0-9]*+)\.[0-9]++|(?![0-9.]{16})[1-9][0-9]*+(?:\.[0-9]++)?[eE][-+]?[0-9]{1,2}+)"
_LONG_NUMBER = "[0-9.]{17,}"
_DECIMAL = r"^[0-9]+\.[0-9]+$"


class PlainLines:
    """The pattern of the lines of one table.

    Args:
        schema: the columns, as Polars infers them from lines of JSON. A line has some of them, in their
            order, and so has an object in it of its fields.
    """

    def __init__(self, schema: pl.Schema) -> None:
        self._floats = any(map(_has_float, schema.values()))
        pattern = rf"{_SPACE}{_object(dict(schema))}{_SPACE}\r?\n"
        self._match = re.compile(pattern.encode()).match

    @classmethod
    def of(cls, schema: pl.Schema) -> PlainLines | None:
        """Return the pattern; None where the table is too wide for one."""
        return cls(schema) if sum(map(_fields, schema.values())) <= _MOST_FIELDS else None

    def end(self, block: bytes, at: int) -> int:
        """Return where the plain lines of a block end that begin at a place; there itself: it has none."""
        while found := self._match(block, at):
            at = found.end()
        return at

    def numbers_are_kept(self, text: str) -> bool:
        """Whether no decimal of a text can lose digits as a double; False: some might.

        With 15 digits or less none does (IEEE 754), nor one that is written as its double would be.
        """
        if not self._floats:
            return True
        long = pl.Series([text]).str.extract_all(_LONG_NUMBER).explode()
        decimals = long.filter(long.str.contains(_DECIMAL))
        return bool((decimals.cast(pl.Float64).cast(pl.String) == decimals).all())


def _object(fields: dict[str, pl.DataType]) -> str:
    """Any of the fields, each once at most, in their order."""
    pairs = ""
    for name, dtype in fields.items():
        key = _key(name)
        pair = rf'{key}{_SPACE}:{_SPACE}{_value(dtype)}{_SPACE}(?:,{_SPACE}(?=")|(?=\}}))'
        # A field is left out where it is not there, and not where its value does not match: in linear time.
        pairs += f"(?:{pair}|(?!{key}))"
    return rf"\{{{_SPACE}{pairs}\}}"


def _key(name: str) -> str:
    spelled = {re.escape(json.dumps(name, ensure_ascii=ascii_only)) for ascii_only in (False, True)}
    return f"(?:{'|'.join(sorted(spelled))})"


def _value(dtype: pl.DataType) -> str:
    match dtype:
        case pl.String():
            known = _TEXT
        case pl.Int64():
            known = _INTEGER
        case pl.Float64():
            known = f"{_FLOAT}|{_SHORT_INTEGER}"
        case pl.Boolean():
            known = "true|false"
        case pl.Struct():
            known = _object({field.name: _instance(field.dtype) for field in dtype.fields})
        case pl.List():
            known = rf"\[{_SPACE}(?:{_value(_instance(dtype.inner))}{_SPACE}(?:,{_SPACE}(?!\])|(?=\])))*\]"
        case _:
            return "null"
    return f"(?:{known}|null)"


def _has_float(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.Float64) or any(map(_has_float, _inner(dtype)))


def _fields(dtype: pl.DataType) -> int:
    return 1 + sum(map(_fields, _inner(dtype)))


def _inner(dtype: pl.DataType) -> list[pl.DataType]:
    if isinstance(dtype, pl.Struct):
        return [_instance(field.dtype) for field in dtype.fields]
    return [_instance(dtype.inner)] if isinstance(dtype, pl.List) else []


def _instance(dtype: Any) -> pl.DataType:
    """Return the type nested in another; by Polars' annotations it might be a class."""
    assert isinstance(dtype, pl.DataType), "Polars infers instances"
    return dtype
