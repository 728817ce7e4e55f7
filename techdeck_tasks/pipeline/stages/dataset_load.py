"""The stage that reads the source: CSV, JSON, JSONL or Parquet, from a path or any URL of fsspec.

Each file is fetched, unpacked and turned into UTF-8 where it needs that, and streamed into one artifact:
memory does not grow with the data, but for one JSON document, whose size has a limit.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, Field

from techdeck_tasks.errors import DataProcessingError, ValidationError
from techdeck_tasks.pipeline.data import data_url, location
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef
from techdeck_tasks.pipeline.data.compression import is_packed, unpacked
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.registry import (
    Partitioning,
    Piece,
    StageContext,
    StageResult,
    concatenated,
    stage,
    summed,
)
from techdeck_tasks.pipeline.stages.csv_scan import CsvParams, CsvScan, csv_scan
from techdeck_tasks.pipeline.stages.dialect import cuts
from techdeck_tasks.pipeline.stages.dtypes import dtype_of
from techdeck_tasks.pipeline.stages.encoding import (
    as_utf8,
    detect_encoding,
    is_unmarked_text,
    known_encoding,
)
from techdeck_tasks.pipeline.stages.json_records import RecordWriter

INFERENCE_ROWS = 10_000
DEFAULT_MAX_BYTES = 1 << 33
DEFAULT_PART_BYTES = 1 << 25
_MOST_PARTS = 100
"""So many parts are written of what is read by one task, however large it is."""
_PARQUET_MAGIC = b"PAR1"
_WITHOUT_BODY = 2 * len(_PARQUET_MAGIC)


class DatasetLoadParams(CsvParams):
    """Parameters of `dataset_load`; those of `CsvParams` are for CSV alone.

    Attributes:
        encoding: CSV, JSON, JSONL: a codec of Python, or ``auto``.
        max_bytes: the most that the source may have, all files together, unpacked.
        part_bytes: one local CSV file in UTF-8 of more than twice this is read in parts of about so many
            bytes, by several workers where there are. Any other source is read by one task, and handed on
            in parts of about so many bytes in memory.
    """

    encoding: Literal["auto"] | Annotated[str, AfterValidator(known_encoding)] = "auto"
    max_bytes: int = Field(DEFAULT_MAX_BYTES, ge=1)
    part_bytes: int = Field(DEFAULT_PART_BYTES, ge=1, le=1 << 30)


def _pieces(context: StageContext, params: DatasetLoadParams) -> Sequence[Piece]:
    """Cut one local CSV file in plain UTF-8 at the ends of lines; anything else is read whole."""
    if context.source.effective_format != "csv" or params.trim or params.comment_prefix is not None:
        return []
    urls = location.matches(context.source.url)
    path = data_url.local_path(urls[0])
    if len(urls) > 1 or data_url.is_remote(urls[0]) or not path.is_file() or not _is_plain(path, params):
        return []
    facts = path.stat()
    if not 2 * params.part_bytes < facts.st_size <= params.max_bytes:
        return []
    scan = csv_scan(path, params)
    ends = cuts(path, params.part_bytes, scan.quote)
    where = {"size": facts.st_size, "modified_ns": facts.st_mtime_ns}
    return [{"begin": begin, "end": end, **where} for begin, end in pairwise([0, *ends])]


def _is_plain(path: Path, params: DatasetLoadParams) -> bool:
    """Whether the beginning of a file is what UTF-8 without a mark may look like; parts look at the rest."""
    if params.encoding != "auto" and codecs.lookup(params.encoding).name != "utf-8":
        return False
    return not is_packed(path) and is_unmarked_text(path)


def _loaded_part(context: StageContext, params: DatasetLoadParams) -> StageResult:
    """Read one piece. Where it is not as the cut supposed, the report says so, and the file is read whole."""
    assert context.piece is not None, "a part has a piece"
    piece = context.piece
    path = data_url.local_path(location.matches(context.source.url)[0])
    location.require_file(path)
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        if (facts.st_size, facts.st_mtime_ns) != (piece["size"], piece["modified_ns"]):
            raise ValidationError(
                f"{data_url.display(context.source.url)} was changed while it was read; run it again",
                field="source.url",
            )
        file.seek(piece["begin"])
        data = file.read(piece["end"] - piece["begin"])
    scan = csv_scan(path, params)
    found = {"format": "csv", "encoding": "utf-8", "separator": scan.separator, "quote": scan.quote}
    try:
        if not data.isascii():
            data.decode()
        mark = scan.quote.encode()
        if mark in data and data.count(mark) % 2:
            return StageResult(None, {"misfits": 1})
        with frame_errors("reading the csv source"):
            schema = scan.frame(INFERENCE_ROWS).collect_schema()
            frame = scan.piece(data, schema, first=piece["begin"] == 0)
    except (UnicodeDecodeError, DataProcessingError):
        return StageResult(None, {"misfits": 1})
    return StageResult(frame, {"misfits": 0, "rows": frame.height, "source_bytes": len(data), **found})


def _joined(context: StageContext, params: DatasetLoadParams, parts: Sequence[StageResult]) -> StageResult:
    report = summed([part.report for part in parts])
    if report.pop("misfits"):
        # As one file: parts of the stages that follow were done already, of pieces that no longer hold.
        return _read_whole(context, params, in_parts=False)
    return StageResult(concatenated(context, params, parts).output, {**report, "files": 1})


@stage(
    "dataset_load",
    params=DatasetLoadParams,
    summary="read the source into an artifact",
    partitioning=Partitioning(split=_pieces, part=_loaded_part, join=_joined),
)
def dataset_load(context: StageContext, params: DatasetLoadParams) -> StageResult:
    """Read the source, one file or all that its pattern finds, and write its rows as one artifact.

    Raises:
        ValidationError: there is no such file, it is no file of its format, no table, or too large, or the
            files of a pattern have different columns.
        DataProcessingError: its rows cannot be read.
        ServiceUnavailableError, ConnectionFailedError, TimeoutError: no service now; worth a retry.
    """
    return _read_whole(context, params, in_parts=True)


def _read_whole(context: StageContext, params: DatasetLoadParams, *, in_parts: bool) -> StageResult:
    source = context.source
    form = source.effective_format
    context.report_progress(0, None)
    reading = _Reading(context, params, form)
    for url in location.matches(source.url):
        context.check_cancelled()
        reading.take(url)
    output = reading.written(in_parts=in_parts)
    report = {
        "rows": output.rows,
        "format": form,
        "files": len(reading.files),
        "source_bytes": reading.source_bytes,
        **reading.found,
    }
    return StageResult(output, report)


@dataclass(slots=True)
class _Reading:
    """The source on its way in.

    Attributes:
        files: what Polars will read, local, plain and in UTF-8.
        source_bytes: the size of the files as they came.
        unpacked_bytes: their size unpacked.
        found: what was detected, of the last file where they differ, for the report.
    """

    context: StageContext
    params: DatasetLoadParams
    form: str
    files: list[Path] = field(default_factory=list)
    source_bytes: int = 0
    unpacked_bytes: int = 0
    found: dict[str, Any] = field(default_factory=dict)

    def take(self, url: str) -> None:
        """Make the file at `url` ready to be read."""
        folder = self.context.workspace / f"source-{len(self.files)}"
        folder.mkdir()
        allowed = self.params.max_bytes - self.unpacked_bytes
        if data_url.is_remote(url):
            path = folder / "fetched"
            location.fetch(url, path, max_bytes=allowed)
        else:
            path = data_url.local_path(url)
            location.require_file(path)
        size = path.stat().st_size
        if size > allowed:
            raise location.too_large(url, self.params.max_bytes)
        path = unpacked(path, folder / "unpacked", url, allowed)
        self.source_bytes += size
        self.unpacked_bytes += path.stat().st_size
        if path.stat().st_size == 0:
            raise ValidationError(f"{data_url.display(url)} is empty", field="source.url")
        self.files.append(_checked_parquet(path, url) if self.form == "parquet" else self._text(path, folder))

    def _text(self, path: Path, folder: Path) -> Path:
        encoding = detect_encoding(path) if self.params.encoding == "auto" else self.params.encoding
        self.found["encoding"] = encoding
        plain = as_utf8(path, encoding, folder / "utf8")
        if self.form == "csv":
            return plain
        records = RecordWriter()
        target = folder / "records.jsonl"
        (records.write_document if self.form == "json" else records.write_lines)(plain, target)
        self.found["numbers_rounded"] = self.found.get("numbers_rounded", 0) + records.rounded
        return target

    def written(self, *, in_parts: bool) -> ArtifactRef:
        """Write the rows of all files to the artifact, which is one file or `in_parts`."""
        write = self._parts if in_parts else self.context.write
        with frame_errors(f"reading the {self.form} source"):
            if self.form != "csv":
                return write(self._union([self._scan(path) for path in self.files]))
            scans = [self._csv(path, number) for number, path in enumerate(self.files)]
            try:
                return write(self._union([scan.frame(INFERENCE_ROWS) for scan in scans]))
            except DataProcessingError:
                # A value further down does not fit the type of the first rows: look at all of them.
                return write(self._union([scan.frame(None) for scan in scans]))

    def _parts(self, frame: pl.LazyFrame) -> ArtifactRef:
        part_bytes = max(self.params.part_bytes, self.unpacked_bytes // _MOST_PARTS)
        with frame_errors(f"reading the {self.form} source"):
            return self.context.write_parts(frame, part_bytes)

    def _union(self, frames: list[pl.LazyFrame]) -> pl.LazyFrame:
        names = [set(frame.collect_schema()) for frame in frames]
        for number, found in enumerate(names):
            if found != names[0]:
                raise ValidationError(
                    f"the files of {data_url.display(self.context.source.url)} have different columns: file "
                    f"{number} (from 0, by name) and the first differ in {len(found ^ names[0])}; "
                    "load them as sources of their own",
                    field="source.url",
                    validation_rule="same_columns",
                )
        if len(frames) == 1:
            return frames[0]
        order = list(frames[0].collect_schema())
        return pl.concat([frame.select(order) for frame in frames], how="vertical_relaxed")

    def _scan(self, path: Path) -> pl.LazyFrame:
        if self.form == "parquet":
            frame = pl.scan_parquet(path, glob=False)
        else:
            frame = pl.scan_ndjson(path, infer_schema_length=None)
        return frame.cast({name: dtype_of(dtype) for name, dtype in self.params.dtypes.items()})

    def _csv(self, path: Path, number: int) -> CsvScan:
        scan = csv_scan(path, self.params)
        self.found |= {"separator": scan.separator, "quote": scan.quote}
        if not self.params.trim:
            return scan
        return scan.trimmed(self.context.workspace / f"trimmed-{number}.csv")


def _checked_parquet(path: Path, url: str) -> Path:
    with path.open("rb") as file:
        head = file.read(len(_PARQUET_MAGIC))
        size = path.stat().st_size
        file.seek(max(0, size - len(_PARQUET_MAGIC)))
        tail = file.read()
    if size <= _WITHOUT_BODY or head != _PARQUET_MAGIC or tail != _PARQUET_MAGIC:
        what = "is cut off" if head == _PARQUET_MAGIC else "is no Parquet file"
        raise ValidationError(
            f"{data_url.display(url)} {what}; transfer it again or check source.format",
            field="source.url",
            validation_rule="parquet",
        )
    return path
