"""What numbers lose as doubles: integers beyond 2^53 may be rounded, and beyond the range all is infinite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

import polars as pl

SMALLEST_NORMAL = 2.2250738585072014e-308
MOST_EXACT_INTEGER = 1 << 53
# 15 decimal digits always survive a double (IEEE 754), also with a point between them.
SAFE_CHARS = 16
_LONG_INTEGER = "[0-9]{16}"
_LONGEST_CUT = 15
_INTEGER = "^[+-]?[0-9]+$"
_WRITTEN_INFINITE = "(?i)^[+-]?inf(inity)?$"
_ROUNDED, _BEYOND = "rounded", "beyond"


@dataclass(frozen=True, slots=True)
class Lost:
    """What the texts of numbers lose.

    Attributes:
        rounded: how many integers are read as the nearest double, and are not it.
        inexact: the columns in which they are.
        beyond: the columns with a number beyond the range of their type.
    """

    rounded: int = 0
    inexact: frozenset[str] = frozenset()
    beyond: frozenset[str] = frozenset()


def is_rounded(text: str, value: float) -> bool:
    """Whether a decimal is not the number that its double, finite, is written as."""
    if value == 0:
        return any(digit in "123456789" for digit in text.lower().partition("e")[0])
    return Decimal(text) != Decimal(repr(value))


def has_long_integer(blocks: Iterable[bytes]) -> bool:
    """Whether in UTF-8 there is an integer so long that a double might not hold it."""
    before = b""
    for block in blocks:
        data = before + block
        text = data.decode(errors="replace")  # a block may end inside a letter
        if pl.Series([text]).str.contains(_LONG_INTEGER).any():
            return True
        before = data[-_LONGEST_CUT:]
    return False


def large_floats(rows: pl.LazyFrame) -> dict[str, pl.DataType]:
    """Return the columns of floats in which one is infinite, or where doubles are no longer all integers.

    Only of those the text has to be looked at: a tenth of what reading it twice takes.
    """
    floats = {name: dtype for name, dtype in rows.collect_schema().items() if dtype.is_float()}
    if not floats:
        return {}
    largest = rows.select(pl.col(name).abs().max() for name in floats).collect(engine="streaming").row(0)
    return {
        name: dtype
        for (name, dtype), value in zip(floats.items(), largest, strict=True)
        if value is not None and value >= MOST_EXACT_INTEGER
    }


def lost(texts: pl.LazyFrame, floats: Mapping[str, pl.DataType]) -> Lost:
    """Return what columns of texts lose as these types, of `pl.Float64` and `pl.Float32`; in a stream.

    Of 32 bits nobody expects that digits stay: only what is beyond their range is told.
    """
    # By number: a column may have any name.
    types = list(floats.values())
    names = [f"{what}{number}" for number in range(len(types)) for what in (_ROUNDED, _BEYOND)]
    schema = pl.Schema(dict.fromkeys(names, pl.Int64))

    def tallied(batch: pl.DataFrame) -> pl.DataFrame:
        counts = (_tally(*each) for each in zip(batch.iter_columns(), types, strict=True))
        return pl.DataFrame([list(chain.from_iterable(counts))], schema=schema, orient="row")

    tallies = texts.select(list(floats)).map_batches(tallied, schema=schema, streamable=True)
    counts = tallies.sum().collect(engine="streaming").row(0, named=True)
    return Lost(
        rounded=sum(count for name, count in counts.items() if name.startswith(_ROUNDED)),
        inexact=frozenset(column for number, column in enumerate(floats) if counts[f"{_ROUNDED}{number}"]),
        beyond=frozenset(column for number, column in enumerate(floats) if counts[f"{_BEYOND}{number}"]),
    )


def _tally(texts: pl.Series, dtype: pl.DataType) -> tuple[int, int]:
    """Return how many are rounded, and how many beyond the range."""
    texts = texts.drop_nulls().str.strip_chars_start(" ")
    numbers = texts.cast(pl.Float64, strict=False)
    infinite = numbers.cast(dtype).is_infinite() & ~texts.str.contains(_WRITTEN_INFINITE)
    if dtype == pl.Float32:
        return 0, int(infinite.sum())
    large = numbers.is_finite() & (numbers.abs() >= MOST_EXACT_INTEGER)
    integers = texts.filter(large & texts.str.contains(_INTEGER)).value_counts()
    return sum(count for text, count in integers.iter_rows() if int(text) != float(text)), int(infinite.sum())


def rounded_integers(frame: pl.LazyFrame, joined: pl.Schema) -> int:
    """Return how many integers of a frame are rounded where they are joined to columns of doubles."""
    columns = [
        pl.col(name)
        for name, dtype in frame.collect_schema().items()
        if dtype.is_integer() and joined[name] == pl.Float64
    ]
    if not columns:
        return 0
    changed = [(each.cast(pl.Float64).cast(pl.Int128) != each.cast(pl.Int128)).sum() for each in columns]
    return sum(frame.select(changed).collect(engine="streaming").row(0))
