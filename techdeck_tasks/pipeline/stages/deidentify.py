"""Columns without what identifies a person, by the safe harbor method of 45 CFR 164.514(b)(2).

Which columns identify is for the one who knows the data to say; no method makes a whole table anonymous by
itself.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data.dtypes import converted
from techdeck_tasks.redaction import sanitize_message

Method = Literal["drop", "mask", "hash", "redact", "age_band", "zip3", "year"]

MIN_KEY_BYTES = 32
_MASK = "***"
# What else there is has no text of its own: Polars would write a part of it, or how it looks in Python.
_PLAIN: dict[str, tuple[str, Callable[[pl.DataType], bool]]] = {
    "hash": ("plain values", lambda dtype: not dtype.is_nested() and dtype not in (pl.Binary, pl.Object)),
    "redact": ("plain values", lambda dtype: not dtype.is_nested() and dtype not in (pl.Binary, pl.Object)),
    "age_band": ("numbers", lambda dtype: dtype.is_numeric() or dtype == pl.String),
    "zip3": (
        "text or integers",
        lambda dtype: dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum),
    ),
    "year": ("dates", lambda dtype: dtype in (pl.Date, pl.Datetime, pl.String)),
}
_BAND_YEARS = 10
_NO_AGE = "<0"
_LAST_ZIP5 = 99_999
# Ages over 89 are one category, and so are years that tell of them: 164.514(b)(2)(i)(C).
_OLDEST_BAND = 90
# Three-digit ZIP areas of 20,000 people or fewer, which become 000: 164.514(b)(2)(i)(B), Census of 2000.
_SMALL_ZIP3 = (
    "036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884",
    "890", "893",
)  # fmt: skip


def read_key(path: Path) -> bytes:
    """Return the HMAC key in the file `path`, spaces around it aside.

    Raises:
        ValidationError: there is no such file, or the key is too short to withstand guessing.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ValidationError(
            f"the key file {path} cannot be read ({type(error).__name__}); check hash_key_file",
            field="params.hash_key_file",
        ) from None
    if len(key) < MIN_KEY_BYTES:
        raise ValidationError(
            f"the key in {path} has {len(key)} bytes; it needs {MIN_KEY_BYTES} at least: "
            "make one with `openssl rand -hex 32`",
            field="params.hash_key_file",
        )
    return key


def deidentified(
    frame: pl.LazyFrame, methods: Mapping[str, Method], key: Callable[[], bytes], this_year: int
) -> pl.LazyFrame:
    """Return `frame` with each named column treated by its method; null stays null.

    drop: the column goes. mask: every value becomes ``***``. hash: HMAC-SHA-256 in hex digits, alike for
    the same value and key, so that tables still join. redact: what looks like an identifier or secret inside
    free text goes. age_band: ten years, ``90+``, and ``<0`` for what is no age. zip3: the first three digits
    of a US ZIP code, ``000`` for what is none. year: of a date, in text one of ISO 8601; of one 90 or more
    years ago, the year 90 years ago, since an earlier one tells an age over 89.

    Args:
        frame: the rows.
        methods: by column.
        key: gives the key for `hash`; called if that is used.
        this_year: the year of now.

    Raises:
        ValidationError: a method does not fit the type of its column.
    """
    schema = frame.collect_schema()
    _require_fit(schema, methods)
    kept = frame.drop(column for column, method in methods.items() if method == "drop")
    return kept.with_columns(_expressions(schema, methods, key, this_year))


def _require_fit(schema: pl.Schema, methods: Mapping[str, Method]) -> None:
    for name, method in methods.items():
        kinds, fits = _PLAIN.get(method, ("", lambda _: True))
        if schema[name] != pl.Null and not fits(schema[name]):
            raise ValidationError(
                f"deidentify: {method} is for {kinds}, and {name!r} is of type {_name(schema[name])}; drop "
                "or mask it, or derive columns of the values in it first",
                field="params.steps",
                validation_rule="deidentify",
            )


def _name(dtype: pl.DataType) -> str:
    """Return the name of a type without what is inside: names of fields may be data."""
    return str(dtype.base_type()).lower()


def _expressions(
    schema: pl.Schema, methods: Mapping[str, Method], key: Callable[[], bytes], this_year: int
) -> Iterator[pl.Expr]:
    for name, method in methods.items():
        column = pl.col(name)
        if method == "mask":
            yield pl.when(column.is_not_null()).then(pl.lit(_MASK)).alias(name)
        elif method == "hash":
            yield _each_text(column, _hasher(key()))
        elif method == "redact":
            yield _each_text(column, sanitize_message)
        elif method == "age_band":
            yield _age_band(column).alias(name)
        elif method == "zip3":
            yield _zip3(column, schema[name]).alias(name)
        elif method == "year":
            yield _year(_date(name, schema[name]), this_year).alias(name)


def _each_text(column: pl.Expr, change: Callable[[str], str]) -> pl.Expr:
    def changed(values: pl.Series) -> pl.Series:
        # Each distinct value once: a column of few values is the common case.
        known = {value: change(value) for value in values.unique().drop_nulls()}
        return pl.Series(
            values.name, [None if value is None else known[value] for value in values], pl.String
        )

    return column.cast(pl.String).map_batches(changed, return_dtype=pl.String, is_elementwise=True)


def _hasher(key: bytes) -> Callable[[str], str]:
    return lambda text: hmac.digest(key, text.encode(), "sha256").hex()


def _age_band(age: pl.Expr) -> pl.Expr:
    low = age.cast(pl.Int64) // _BAND_YEARS * _BAND_YEARS
    band = pl.format("{}-{}", low, low + _BAND_YEARS - 1)
    return pl.when(age.is_not_null()).then(
        # An integer cast makes 0 of -0.5. A bad row stays visible, and tells no more than that it is one.
        pl.when(age.cast(pl.Float64) < 0)
        .then(pl.lit(_NO_AGE))
        .when(low >= _OLDEST_BAND)
        .then(pl.lit(f"{_OLDEST_BAND}+"))
        .otherwise(band)
    )


def _zip3(code: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    text = code.cast(pl.String).str.strip_chars()
    if dtype.is_numeric():
        # A reader that took the codes for numbers has lost their zeros: of five digits, or of nine.
        number = code.cast(pl.Int64, strict=False)
        digits = number.cast(pl.String)
        text = pl.when(number <= _LAST_ZIP5).then(digits.str.zfill(5)).otherwise(digits.str.zfill(9))
    area = text.str.extract(r"^([0-9]{3})[0-9]{2}(?:[- ]?[0-9]{4})?$")
    return pl.when(code.is_not_null()).then(
        pl.when(area.is_in(_SMALL_ZIP3) | area.is_null()).then(pl.lit("000")).otherwise(area)
    )


def _date(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        # Polars would take the form of the first value for all of them.
        return converted(name, dtype, "datetime", strict=True)
    return pl.col(name).cast(pl.Date) if dtype == pl.Null else pl.col(name)


def _year(moment: pl.Expr, this_year: int) -> pl.Expr:
    year = moment.dt.year()
    return pl.when(year <= this_year - _OLDEST_BAND).then(this_year - _OLDEST_BAND).otherwise(year)
