"""Parquet in ranges of rows: what lies before a range in its row group is skipped page by page."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from techdeck_tasks.pipeline.data.batches import row_bytes
from techdeck_tasks.pipeline.data.dtypes import with_dtypes
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.sources.params import DatasetLoadParams

_READING = "reading the parquet source"


class ParquetFile:
    """A `CutFile` of Parquet."""

    def __init__(self, path: Path, params: DatasetLoadParams) -> None:
        self._path = path
        self._params = params
        self.found: dict[str, Any] = {"numbers_rounded": 0}

    def weight(self) -> int:
        """Return what its rows take in memory, by samples; its size where that is more."""
        return self._weight

    def ends(self, part_bytes: int) -> list[int]:
        """Return numbers of rows."""
        step = max(1, part_bytes * self._height // self._weight)
        return [*range(step, self._height - step // 2, step), self._height]

    def columns(self) -> pl.Schema:
        """Return the types that the file tells, or those that are wanted."""
        with frame_errors(_READING):
            return self._frame.collect_schema()

    def rows(self, begin: int, end: int) -> pl.DataFrame:
        """Return the rows from number `begin` until before `end`."""
        with frame_errors(_READING):
            return self._frame.slice(begin, end - begin).collect(engine="streaming")

    @cached_property
    def _frame(self) -> pl.LazyFrame:
        return with_dtypes(pl.scan_parquet(self._path, glob=False), self._params.dtypes)

    @cached_property
    def _weight(self) -> int:
        with frame_errors(_READING):
            return max(self._path.stat().st_size, self._height * row_bytes(self._frame, self._height))

    @cached_property
    def _height(self) -> int:
        with frame_errors(_READING):
            return int(self._frame.select(pl.len()).collect().item())
