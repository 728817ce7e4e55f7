"""Names of data types in parameters, and conversion to them."""

from __future__ import annotations

from typing import Literal

import polars as pl

DtypeName = Literal[
    "int", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float", "float32", "float64", "str", "bool", "date", "datetime",
]  # fmt: skip

_DTYPES: dict[str, type[pl.DataType]] = {
    "int": pl.Int64,
    "int8": pl.Int8,
    "int16": pl.Int16,
    "int32": pl.Int32,
    "int64": pl.Int64,
    "uint8": pl.UInt8,
    "uint16": pl.UInt16,
    "uint32": pl.UInt32,
    "uint64": pl.UInt64,
    "float": pl.Float64,
    "float32": pl.Float32,
    "float64": pl.Float64,
    "str": pl.String,
    "bool": pl.Boolean,
    "date": pl.Date,
    "datetime": pl.Datetime,
}
_TRUE = ("true", "True", "TRUE", "1", "yes", "t", "y")
_FALSE = ("false", "False", "FALSE", "0", "no", "f", "n")


def dtype_of(name: DtypeName) -> type[pl.DataType]:
    """Return Polars' type; ``int`` and ``float`` are 64 bits wide."""
    return _DTYPES[name]


def converted(column: str, source: pl.DataType, name: DtypeName, *, strict: bool) -> pl.Expr:
    """Return `column` as the named type.

    Text becomes a date or datetime by ISO 8601, and a boolean by true/false, yes/no, t/f, y/n, 1/0.

    Args:
        column: the column.
        source: its type now.
        name: the type wanted.
        strict: a value that cannot be converted is an error; else it becomes null.
    """
    target = _DTYPES[name]
    expression = pl.col(column)
    if source == target:
        return expression
    if isinstance(source, pl.String) and target is pl.Boolean:
        pairs = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
        old, new = list(pairs), list(pairs.values())
        if strict:
            return expression.replace_strict(old, new, return_dtype=pl.Boolean)
        return expression.replace_strict(old, new, default=None, return_dtype=pl.Boolean)
    if isinstance(source, pl.String) and target is pl.Date:
        return expression.str.to_date(strict=strict)
    if isinstance(source, pl.String) and target is pl.Datetime:
        return expression.str.to_datetime(strict=strict)
    return expression.cast(target, strict=strict)
