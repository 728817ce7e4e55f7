"""JSON Lines in ranges of lines."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from techdeck_tasks.pipeline.data.dtypes import with_dtypes
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.sources.cut_file import CutText, Misfit, is_plain_text, read_range
from techdeck_tasks.pipeline.sources.dialect import cuts
from techdeck_tasks.pipeline.sources.json_records import RecordWriter
from techdeck_tasks.pipeline.sources.same_columns import without_empty_objects

_HEAD_BYTES = 1 << 21


@dataclass(frozen=True, slots=True)
class _Head:
    """The first lines, and what they tell of those that follow.

    Attributes:
        records: what was made of them.
        schema: their columns; an object without a field has none.
        readable: the same, as they are read.
        writer: takes lines of these columns as they are, and knows the kinds of their values.
    """

    records: list[bytes]
    schema: pl.Schema
    readable: pl.Schema
    writer: RecordWriter


class JsonlFile(CutText):
    """A `CutFile` of JSON Lines."""

    def ends(self, part_bytes: int) -> list[int]:
        """Return offsets."""
        if not is_plain_text(self._path, self._params) or not self._head.writer.kinds:
            return []
        return cuts(self._path, part_bytes, quote=None)

    def columns(self) -> pl.Schema:
        """Return the types of the first lines, or those that are wanted."""
        return self._as_wanted(pl.LazyFrame(schema=self._head.readable)).collect_schema()

    def rows(self, begin: int, end: int) -> pl.DataFrame:
        """Return the rows of whole lines, each checked by the letter."""
        head = self._head
        # What a piece adds to is its own: the head is kept for others.
        writer = head.writer.continued()
        records: list[bytes] = []
        close: list[bytes] = []
        for record, plain in writer.records(io.BytesIO(read_range(self._path, begin, end))):
            records.append(record)
            if not plain:
                close.append(record)
        rounded = writer.rounded + writer.rounded_integers(head.schema)
        self.found = {"encoding": "utf-8", "numbers_rounded": rounded}
        with frame_errors("reading the jsonl source"):
            if close and not self._fit(writer, close):
                raise Misfit
            if not records:
                return pl.DataFrame(schema=self.columns())
            frame = pl.scan_ndjson(io.BytesIO(b"".join(records)), schema=head.readable)
            return self._as_wanted(frame).collect(engine="streaming")

    def _fit(self, writer: RecordWriter, records: list[bytes]) -> bool:
        """Whether the columns stay what they are with these records; plain ones are no question."""
        head = self._head
        schema = writer.schema(io.BytesIO(b"".join([*head.records, *records])))
        return list(schema.items()) == list(head.schema.items())

    def _as_wanted(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        return with_dtypes(frame, self._params.dtypes)

    @cached_property
    def _head(self) -> _Head:
        data = read_range(self._path, 0, _HEAD_BYTES)
        text = data[: data.rfind(b"\n") + 1]
        writer = RecordWriter()
        records = list(writer.learning(io.BytesIO(text)))
        with frame_errors("reading the jsonl source"):
            schema = writer.schema(io.BytesIO(b"".join(records)))
        writer.learn(schema)
        return _Head(records, schema, without_empty_objects(schema, schema), writer)
