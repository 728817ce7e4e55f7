"""Random choices of rows that a seed repeats, with every version of Polars and in any batches."""

from __future__ import annotations

import polars as pl

_INDEX = "__row"


def chosen(seed: int, share: float) -> pl.Expr:
    """Return whether a row is among the `share` of rows that `seed` chooses; for `numbered` rows."""
    return _random(seed) < round(share * ((1 << 64) - 1))


def first_chosen(seed: int, rows: int) -> pl.Expr:
    """Return whether a row is among the `rows` rows that `seed` chooses; for `numbered` rows."""
    return _random(seed).rank("ordinal") <= rows


def numbered(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return `frame` with the rows' numbers, that `unnumbered` takes away."""
    return frame.with_row_index(_INDEX)


def unnumbered(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return `frame` without the rows' numbers."""
    return frame.drop(_INDEX)


def _random(seed: int) -> pl.Expr:
    """Return SplitMix64 (Steele et al., 2014) of the row's number: 64 even bits. Polars' integers wrap."""
    z = (pl.col(_INDEX).cast(pl.UInt64) + _u64(seed + 1)) * _u64(0x9E3779B97F4A7C15)
    z = (z ^ (z // _u64(1 << 30))) * _u64(0xBF58476D1CE4E5B9)
    z = (z ^ (z // _u64(1 << 27))) * _u64(0x94D049BB133111EB)
    return z ^ (z // _u64(1 << 31))


def _u64(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.UInt64)
