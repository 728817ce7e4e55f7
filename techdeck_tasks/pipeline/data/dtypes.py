"""Names of data types in parameters, and conversion to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import polars as pl

from techdeck_tasks.errors import ValidationError

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
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_FLOATS = (pl.Float32, pl.Float64)
_LONG_INTEGERS = (pl.Int64, pl.UInt64, pl.Int128)
_TRUE = ("true", "True", "TRUE", "1", "yes", "t", "y")
_DATE = "%Y-%m-%d"
_DATETIMES = (
    "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", _DATE
)  # fmt: skip
# Written so it is meant, and no number beyond a range.
_INFINITE = "(?i)^[+-]?inf(inity)?$"
BEYOND = "beyond the range of"
"""In the text of Polars' error, followed by the name of the type."""
INEXACT = "not held exactly by"
"""Likewise."""
_WITH_OFFSET = "%+"
_FALSE = ("false", "False", "FALSE", "0", "no", "f", "n")


def dtype_of(name: DtypeName) -> type[pl.DataType]:
    """Return Polars' type; ``int`` and ``float`` are 64 bits wide."""
    return _DTYPES[name]


def with_dtypes(frame: pl.LazyFrame, dtypes: Mapping[str, DtypeName]) -> pl.LazyFrame:
    """Return `frame` with these types of columns, each value `converted`; one that cannot be is an error."""
    schema = frame.collect_schema() if dtypes else pl.Schema()
    # Of a column that is not there, Polars tells where the rows are asked for.
    return frame.with_columns(
        converted(name, schema.get(name, pl.Null()), dtype, strict=True) for name, dtype in dtypes.items()
    )


def converted(column: str, source: pl.DataType, name: DtypeName, *, strict: bool) -> pl.Expr:
    """Return `column` as the named type.

    Text becomes a date or datetime by ISO 8601 (a datetime with an offset, that of UTC), and a boolean by
    true/false, yes/no, t/f, y/n, 1/0. A number with a fraction is no integer, a number is no date, and of
    numbers only 1 and 0 are booleans: what does not fit is not rounded. A number beyond the range of a float
    is none, and not infinite; nor is an integer, also one in text, that a float of 64 bits does not hold
    exactly. (Of 32 bits nobody expects that digits stay.)

    Args:
        column: the column.
        source: its type now.
        name: the type wanted.
        strict: a value that cannot be converted is an error; else it becomes null.

    Raises:
        ValidationError: no value of the one type is one of the other.
    """
    target = _DTYPES[name]
    values = pl.col(column)
    if isinstance(source, pl.Datetime) and source.time_zone is not None and target is not pl.String:
        source, values = pl.Datetime(), _without_zone(values, target)
    if source == target:
        return values
    _require_convertible(column, source, name)
    if isinstance(source, pl.Categorical | pl.Enum):
        source, values = pl.String(), values.cast(pl.String)
    if target in (pl.Boolean, *_INTEGERS):
        values = _whole(values, source, target, strict=strict)
    if isinstance(source, pl.String) or source.is_numeric():
        text = values.cast(pl.String)
        if target is pl.Boolean:
            values = _truth(text, strict=strict)
        elif target is pl.Date:
            values = text.str.to_date(_DATE, strict=strict)
        elif target is pl.Datetime:
            values = _moment(text, strict=strict)
    return (
        _as_float(values, source, name, strict=strict)
        if target in _FLOATS
        else values.cast(target, strict=strict)
    )


def _without_zone(values: pl.Expr, target: type[pl.DataType]) -> pl.Expr:
    """Return moments in UTC; of a date, the day that it was there."""
    there = values if target is pl.Date else values.dt.convert_time_zone("UTC")
    return there.dt.replace_time_zone(None)


def _whole(values: pl.Expr, source: pl.DataType, target: type[pl.DataType], *, strict: bool) -> pl.Expr:
    """Return numbers, of which those with a fraction are none."""
    if source.is_decimal():
        return _without(values != values.floor(), values, f"{INEXACT} int", strict=strict)
    if source.is_float():
        # No integer is infinite: a strict cast fails, another one gives null.
        values = pl.when(values != values.floor()).then(float("inf")).otherwise(values)
        return values.cast(pl.Int64 if target is pl.Boolean else target, strict=strict)
    return values


def _as_float(values: pl.Expr, source: pl.DataType, name: DtypeName, *, strict: bool) -> pl.Expr:
    found = values.cast(_DTYPES[name], strict=strict)
    if _DTYPES[name] is pl.Float64 and (source in _LONG_INTEGERS or isinstance(source, pl.String)):
        found = _exact(values, found, name, strict=strict)
    if source.is_float() or isinstance(source, pl.String):
        found = _in_range(values, found, name, strict=strict)
    return found


def _require_convertible(column: str, source: pl.DataType, name: DtypeName) -> None:
    target = _DTYPES[name]
    if source.is_numeric() or isinstance(source, pl.String | pl.Categorical | pl.Enum | pl.Null):
        fits = True
    elif isinstance(source, pl.Date | pl.Datetime):
        fits = target in (pl.Date, pl.Datetime, pl.String)
    elif isinstance(source, pl.Boolean):
        fits = target not in (pl.Date, pl.Datetime)
    else:
        fits = isinstance(source, pl.Time) and target is pl.String
    if not fits:
        raise ValidationError(
            f"{column!r} is of type {str(source.base_type()).lower()}, of which no value is a {name}; choose "
            "another type, or leave the column out",
            field="dtype",
            validation_rule="dtype",
        )


def _exact(values: pl.Expr, found: pl.Expr, name: DtypeName, *, strict: bool) -> pl.Expr:
    """Return floats, of which those are none that are another number than the integer they are made of."""
    whole = values.cast(pl.Int128, strict=False)
    rounded = (found.cast(pl.Int128, strict=False) != whole).fill_null(value=False)
    return _without(rounded, found, f"{INEXACT} {name}", strict=strict)


def _in_range(values: pl.Expr, found: pl.Expr, name: DtypeName, *, strict: bool) -> pl.Expr:
    """Return floats, of which those that became infinite are none."""
    beyond = found.is_infinite() & ~values.cast(pl.String).str.contains(_INFINITE)
    return _without(beyond, found, f"{BEYOND} {name}", strict=strict)


def _without(unfit: pl.Expr, found: pl.Expr, reason: str, *, strict: bool) -> pl.Expr:
    if not strict:
        return pl.when(unfit.not_()).then(found)
    # It fails, and its text is what the error tells.
    refused = pl.when(unfit).then(pl.lit(reason)).cast(pl.Float64, strict=True)
    return pl.when(refused.is_null()).then(found)


def _truth(text: pl.Expr, *, strict: bool) -> pl.Expr:
    pairs = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
    old, new = list(pairs), list(pairs.values())
    if strict:
        return text.replace_strict(old, new, return_dtype=pl.Boolean)
    return text.replace_strict(old, new, default=None, return_dtype=pl.Boolean)


def _moment(text: pl.Expr, *, strict: bool) -> pl.Expr:
    """Return texts as datetimes, each by its own form: Polars would take that of the first for all."""
    forms = [
        text.str.to_datetime(form, strict=False, time_unit="us", ambiguous="earliest") for form in _DATETIMES
    ]
    with_offset = text.str.to_datetime(_WITH_OFFSET, strict=False, time_unit="us")
    found = pl.coalesce(*forms, with_offset.dt.convert_time_zone("UTC").dt.replace_time_zone(None))
    if not strict:
        return found
    refused = pl.when(found.is_null()).then(text)
    return pl.coalesce(found, refused.str.to_datetime(_DATETIMES[0], strict=True, time_unit="us"))
