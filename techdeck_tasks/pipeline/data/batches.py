"""Rows taken batch by batch, so that memory does not grow with the data.

Polars' own `collect_batches` is of no use: where its reader panics, as it does at some malformed CSV, the
batches end as if there were no more rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

_SAMPLES = 8
_SAMPLE_ROWS = 125


def batches_of(frame: pl.LazyFrame, rows: int, batch_rows: int) -> Iterator[pl.DataFrame]:
    """Yield the `rows` of a frame in their order, so many at a time; of no rows one batch without any.

    The frame's slices must be cheap, as those of Parquet files are.
    """
    for begin in range(0, max(1, rows), batch_rows):
        yield frame.slice(begin, batch_rows).collect(engine="streaming")


def row_bytes(frame: pl.LazyFrame, rows: int) -> int:
    """Return about how many bytes of memory a row takes, of several samples the one where it is most.

    The frame's slices must be cheap.
    """
    starts = {rows * sample // _SAMPLES for sample in range(_SAMPLES)}
    samples = [frame.slice(start, _SAMPLE_ROWS).collect(engine="streaming") for start in starts]
    return max(1, *(int(sample.estimated_size()) // max(1, sample.height) for sample in samples))
