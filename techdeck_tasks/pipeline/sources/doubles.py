"""What numbers lose as doubles: beyond their range all is infinite, and digits behind the 15th may go."""

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
_DOUBTFUL = r"[0-9.]{16}|[0-9.][eE]"
_LONGEST_DOUBTFUL = 16
_EIGHT_TRUE = 0x0101010101010101
_WRITTEN_INFINITE = "(?i)^[+-]?inf(inity)?$"
_ROUNDED, _BEYOND = "rounded", "beyond"


@dataclass(frozen=True, slots=True)
class Lost:
    """What the texts of numbers lose.

    Attributes:
        rounded: how many are read as the nearest double, and are not it.
        beyond: the columns with one beyond the range of their type.
    """

    rounded: int
    beyond: frozenset[str]


def is_rounded(text: str, value: float) -> bool:
    """Whether a decimal is not the number that its double, finite, is written as."""
    if value == 0:
        return any(digit in "123456789" for digit in text.lower().partition("e")[0])
    return Decimal(text) != Decimal(repr(value))


def may_lose(blocks: Iterable[bytes]) -> bool:
    """Whether in UTF-8 there is a number so long, or with an exponent, that it might lose anything."""
    before = b""
    for block in blocks:
        data = before + block if before else block
        # Most tables have no such number, and the pattern takes three times as long to tell.
        if _may_be_doubtful(data):
            text = data.decode(errors="replace")  # a block may end inside a letter
            if pl.Series([text]).str.contains(_DOUBTFUL).any():
                return True
        before = data[-_LONGEST_DOUBTFUL:]
    return False


def _may_be_doubtful(data: bytes) -> bool:
    """Whether half a doubtful number, eight digits in one word of the processor, or an exponent is there."""
    import numpy as np  # noqa: PLC0415 - a worker has it by then; whoever only names stages need not wait

    codes = np.frombuffer(data, np.uint8)
    digits = codes - np.uint8(ord(".")) <= ord("9") - ord(".")
    words = digits[: len(digits) // 8 * 8].view(np.uint64)
    exponents = (codes[1:] | np.uint8(0x20)) == ord("e")
    return bool((words == _EIGHT_TRUE).any() or (exponents & digits[:-1]).any())


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
        beyond=frozenset(column for number, column in enumerate(floats) if counts[f"{_BEYOND}{number}"]),
    )


def _tally(texts: pl.Series, dtype: pl.DataType) -> tuple[int, int]:
    """Return how many are rounded, and how many beyond the range."""
    texts = texts.drop_nulls()
    texts = texts.filter((texts.str.len_bytes() >= SAFE_CHARS) | texts.str.contains("[eE]"))
    if not len(texts):
        return 0, 0
    texts = texts.str.strip_chars_start(" ")
    numbers = texts.cast(pl.Float64, strict=False)
    infinite = numbers.cast(dtype).is_infinite() & ~texts.str.contains(_WRITTEN_INFINITE)
    if dtype == pl.Float32:
        return 0, int(infinite.sum())
    long = (texts.str.len_bytes() >= SAFE_CHARS) & (numbers.cast(pl.String) != texts)
    doubtful = texts.filter(numbers.is_finite() & (long | (numbers.abs() < SMALLEST_NORMAL)))
    rounded = sum(
        count for text, count in doubtful.value_counts().iter_rows() if is_rounded(text, float(text))
    )
    return rounded, int(infinite.sum())


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
