"""Rows computed batch by batch, so that memory does not grow with the data."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

_PIECE_BATCH_ROWS = 50_000


def batches_of(frame: pl.LazyFrame, batch_rows: int) -> Iterator[pl.DataFrame]:
    """Yield the rows in their order, about `batch_rows` at a time; first none, for the columns of no rows."""
    yield frame.head(0).collect()
    yield from frame.collect_batches(chunk_size=batch_rows, maintain_order=True)


def pieces_of(frame: pl.LazyFrame, piece_bytes: int) -> Iterator[pl.DataFrame]:
    """Yield the rows in their order, in pieces of about so many bytes of memory.

    A frame without rows is one piece.
    """
    # Eight bytes a value is about what most take.
    row_bytes = 8 * max(1, len(frame.collect_schema()))
    gathered: list[pl.DataFrame] = []
    size = 0
    for batch in batches_of(frame, min(_PIECE_BATCH_ROWS, max(1, piece_bytes // row_bytes))):
        gathered.append(batch)
        size += int(batch.estimated_size())
        if size >= piece_bytes:
            yield pl.concat(gathered)
            gathered, size = [], 0
    if gathered:
        yield pl.concat(gathered)
