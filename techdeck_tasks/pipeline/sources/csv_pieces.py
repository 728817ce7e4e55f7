"""CSV in ranges that end at ends of lines outside of quotes."""

from __future__ import annotations

import io
from functools import cached_property

import polars as pl

from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.sources.csv_scan import CsvScan, csv_scan
from techdeck_tasks.pipeline.sources.cut_file import CutText, Misfit, is_plain_text, read_range
from techdeck_tasks.pipeline.sources.dialect import cuts, may_have_stray_quotes, stray_quote
from techdeck_tasks.pipeline.sources.doubles import large_floats
from techdeck_tasks.pipeline.sources.params import INFERENCE_ROWS


class CsvFile(CutText):
    """A `CutFile` of CSV."""

    def ends(self, part_bytes: int) -> list[int]:
        """Return offsets; none where values or lines are changed before they are read."""
        if self._params.trim or self._params.comment_prefix is not None:
            return []
        if not is_plain_text(self._path, self._params):
            return []
        return cuts(self._path, part_bytes, self._scan.quote)

    def columns(self) -> pl.Schema:
        """Return the types of the first rows."""
        return self._schema

    def rows(self, begin: int, end: int) -> pl.DataFrame:
        """Return the rows of whole lines."""
        data = read_range(self._path, begin, end)
        if not data.isascii():
            data.decode()
        mark = self._scan.quote.encode()
        if mark in data and data.count(mark) % 2:
            raise Misfit
        if b"\0" in data or self._has_stray_quote(data):
            raise Misfit
        self.found = {"encoding": "utf-8", "separator": self._scan.separator, "quote": self._scan.quote}
        with frame_errors("reading the csv source"):
            rows = self._scan.piece(data, self._schema, first=begin == 0)
            later = () if begin == 0 else list(self._schema)
            lost = self._scan.lost(large_floats(rows.lazy()), data, later=later)
        if lost.beyond or lost.inexact & set(self._params.dtypes):
            raise Misfit
        self.found["numbers_rounded"] = lost.rounded
        return rows

    def _has_stray_quote(self, data: bytes) -> bool:
        separator, quote = self._scan.separator, self._scan.quote
        if not may_have_stray_quotes(data, separator, quote):
            return False
        return stray_quote(io.StringIO(data.decode(), newline=""), separator, quote) is not None

    @cached_property
    def _scan(self) -> CsvScan:
        return csv_scan(self._path, self._params)

    @cached_property
    def _schema(self) -> pl.Schema:
        with frame_errors("reading the csv source"):
            return self._scan.frame(INFERENCE_ROWS).collect_schema()
