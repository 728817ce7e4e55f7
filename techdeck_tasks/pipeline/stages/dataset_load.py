"""The stage that reads the source: CSV, JSON, JSONL or Parquet, from a path or any URL of fsspec.

Each file is fetched, unpacked and turned into UTF-8 where it needs that, and streamed into one artifact:
memory does not grow with the data, but for one JSON document, whose size has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from techdeck_tasks.errors import DataProcessingError, ValidationError
from techdeck_tasks.pipeline.data import data_url, location
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef
from techdeck_tasks.pipeline.data.compression import unpacked
from techdeck_tasks.pipeline.data.dtypes import BEYOND, INEXACT, with_dtypes
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.data.transfer_errors import transfer_errors
from techdeck_tasks.pipeline.registry import (
    Partitioning,
    StageContext,
    StageResult,
    concatenated,
    stage,
    summed,
)
from techdeck_tasks.pipeline.sources.csv_scan import CsvScan, csv_scan, require_columns
from techdeck_tasks.pipeline.sources.dialect import lone_quote, long_row, stray_quote_in
from techdeck_tasks.pipeline.sources.doubles import large_floats, rounded_integers
from techdeck_tasks.pipeline.sources.encoding import (
    as_utf8,
    detect_encoding,
    require_no_zero,
    with_line_feeds,
)
from techdeck_tasks.pipeline.sources.json_records import RecordWriter
from techdeck_tasks.pipeline.sources.params import INFERENCE_ROWS, DatasetLoadParams
from techdeck_tasks.pipeline.sources.pieces import MISFITS, loaded_part, pieces
from techdeck_tasks.pipeline.sources.same_columns import mixed_columns, union, without_empty_objects

_MOST_PARTS = 100
"""So many parts are written of what is read by one task, however large it is."""
_NO_ESCAPES = (
    "backslashes escape nothing in CSV, as they do in files of MySQL or Hive: "
    "write it again with quotes around such fields, and quotes in them doubled (RFC 4180)"
)
_PARQUET_MAGIC = b"PAR1"
_WITHOUT_BODY = 2 * len(_PARQUET_MAGIC)


def _joined(context: StageContext, params: DatasetLoadParams, parts: Sequence[StageResult]) -> StageResult:
    report = summed([part.report for part in parts])
    if report.pop(MISFITS):
        # As one file: parts of the stages that follow were done already, of pieces that no longer hold.
        return _read_whole(context, params, in_parts=False)
    return StageResult(concatenated(context, params, parts).output, report)


@stage(
    "dataset_load",
    params=DatasetLoadParams,
    summary="read the source into an artifact",
    partitioning=Partitioning(split=pieces, part=loaded_part, join=_joined),
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
    for url in context.source_files():
        context.check_cancelled()
        reading.take(url)
    try:
        output = reading.written(in_parts=in_parts)
    finally:
        reading.require_unchanged()
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
        writers: by file, of JSON, what wrote its records and knows their columns.
        source_bytes: the size of the files as they came.
        unpacked_bytes: their size unpacked.
        versions: of local files, what they were when they were first looked at.
        found: what was detected, of the last file where they differ, for the report.
    """

    context: StageContext
    params: DatasetLoadParams
    form: str
    files: list[Path] = field(default_factory=list)
    writers: dict[Path, RecordWriter] = field(default_factory=dict)
    source_bytes: int = 0
    unpacked_bytes: int = 0
    versions: dict[Path, location.Version] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def take(self, url: str) -> None:
        """Make the file at `url` ready to be read."""
        with transfer_errors(url):
            self._take(url)

    def _take(self, url: str) -> None:
        folder = self.context.workspace / f"source-{len(self.files)}"
        folder.mkdir()
        allowed = self.params.max_bytes - self.unpacked_bytes
        if data_url.is_remote(url):
            path = folder / "fetched"
            location.fetch(url, path, max_bytes=allowed, boundary=self.context.boundary)
        else:
            path = data_url.local_path(url)
            location.require_file(path)
            self.versions[path] = location.version(path)
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
            return with_line_feeds(plain, folder / "lines")
        target = folder / "records.jsonl"
        records = self.writers[target] = RecordWriter()
        (records.write_document if self.form == "json" else records.write_lines)(plain, target)
        return target

    def require_unchanged(self) -> None:
        """Check that the local files are what they were: each is read several times, and a few at length.

        Raises:
            ValidationError: one is not.
        """
        for path, version in self.versions.items():
            location.require_version(path, version, self.context.source.url)

    def written(self, *, in_parts: bool) -> ArtifactRef:
        """Write the rows of all files to the artifact, which is one file or `in_parts`."""
        write = self._parts if in_parts else self.context.write
        with frame_errors(f"reading the {self.form} source"):
            if self.form == "parquet":
                return write(self._joined([pl.scan_parquet(path, glob=False) for path in self.files]))
            if self.form != "csv":
                return write(self._joined(self._records()))
            scans = [self._csv(path, number) for number, path in enumerate(self.files)]
            try:
                return write(self._rows(scans, INFERENCE_ROWS))
            except DataProcessingError:
                for scan in scans:
                    _require_even_rows(scan)
                # A value further down does not fit the type of the first rows: look at all of them.
                self.found.pop("numbers_rounded", None)
                try:
                    return write(self._rows(scans, None))
                except DataProcessingError:
                    if not self.params.dtypes:  # no value can have another type than is wanted
                        for scan in scans:
                            _require_no_lone_quote(scan)
                    raise

    def _joined(self, frames: list[pl.LazyFrame]) -> pl.LazyFrame:
        """Return the rows of files that tell their types, with those wanted."""
        for frame in frames:
            require_columns(self.params.dtypes, frame.collect_schema())
        frames = [with_dtypes(frame, self.params.dtypes) for frame in frames]
        joined = union(frames, self.context.source.url)
        schema = joined.collect_schema()
        self._rounded(sum(rounded_integers(frame, schema) for frame in frames))
        return joined

    def _records(self) -> list[pl.LazyFrame]:
        schemas = {path: writer.schema(path) for path, writer in self.writers.items()}
        tables = [pl.LazyFrame(schema=schema) for schema in schemas.values()]
        joined = union(tables, self.context.source.url).collect_schema()
        self._rounded(sum(writer.rounded_in(path, schemas[path]) for path, writer in self.writers.items()))
        return [
            pl.scan_ndjson(path, schema=without_empty_objects(schema, joined))
            for path, schema in schemas.items()
        ]

    def _rows(self, scans: list[CsvScan], inference_rows: int | None) -> pl.LazyFrame:
        """Return the rows of CSV.

        A column in which a number is beyond the range of a double has no numbers, but names of something.

        Raises:
            DataProcessingError: such a column is to be of numbers.
        """
        joined = union(_agreeing(scans, inference_rows), self.context.source.url)
        with frame_errors("reading the csv source"):
            large = large_floats(joined)
            found = [scan.lost(large) for scan in scans]
        beyond = {column for lost in found for column in lost.beyond}
        inexact = {column for lost in found for column in lost.inexact}
        for column, dtype in self.params.dtypes.items():
            if column in beyond | inexact:
                raise DataProcessingError(
                    f"reading the csv source failed: a number is {BEYOND if column in beyond else INEXACT} "
                    f"{dtype}; mend it, or check dtypes",
                    operation="reading the csv source",
                )
        if beyond:
            return self._rows(
                [scan.with_dtypes(dict.fromkeys(beyond, "str")) for scan in scans], inference_rows
            )
        self._rounded(sum(lost.rounded for lost in found))
        return joined

    def _rounded(self, numbers: int) -> None:
        self.found["numbers_rounded"] = self.found.get("numbers_rounded", 0) + numbers

    def _parts(self, frame: pl.LazyFrame) -> ArtifactRef:
        part_bytes = max(self.params.part_bytes, self.unpacked_bytes // _MOST_PARTS)
        with frame_errors(f"reading the {self.form} source"):
            return self.context.write_parts(frame, part_bytes)

    def _csv(self, path: Path, number: int) -> CsvScan:
        scan = csv_scan(path, self.params)
        self.found |= {"separator": scan.separator, "quote": scan.quote}
        require_no_zero(path)
        _require_no_stray_quote(scan)
        if not self.params.trim:
            return scan
        return scan.trimmed(self.context.workspace / f"trimmed-{number}.csv")


def _agreeing(scans: list[CsvScan], inference_rows: int | None) -> list[pl.LazyFrame]:
    """Return the rows of files, as if they were one file.

    A column is read again as text where one file has no numbers in it. A file without rows says nothing of
    types, and is left out where another has rows.
    """
    frames = [scan.frame(inference_rows) for scan in scans]
    if len(scans) == 1:
        return frames
    filled = [
        (scan, frame) for scan, frame in zip(scans, frames, strict=True) if frame.head(1).collect().height
    ]
    mixed = mixed_columns([frame.collect_schema() for _, frame in filled])
    return [
        scan.with_dtypes(dict.fromkeys(mixed, "str")).frame(inference_rows) if mixed else frame
        for scan, frame in filled
    ] or frames


def _require_even_rows(scan: CsvScan) -> None:
    if found := long_row(scan.path, scan.separator, scan.quote, scan.skipped_lines):
        remedy = _NO_ESCAPES if found.escapes else "mend the row, or check separator and quote"
        raise DataProcessingError(
            f"reading the csv source failed: the row that ends in line {found.line} has "
            f"{found.fields} fields, the first row {found.width}; {remedy}",
            operation="reading the csv source",
        )


def _require_no_lone_quote(scan: CsvScan) -> None:
    line = lone_quote(scan.path, scan.separator, scan.quote, scan.skipped_lines)
    if line is not None:
        raise DataProcessingError(
            f"reading the csv source failed: the row at line {line} has a quote inside a field that is not "
            "doubled, or one around a field that has no end; mend the row, or check separator and quote",
            operation="reading the csv source",
        )


def _require_no_stray_quote(scan: CsvScan) -> None:
    found = stray_quote_in(scan.path, scan.separator, scan.quote, scan.skipped_lines)
    if found is not None:
        remedy = _NO_ESCAPES if found.escaped else "write it again with quotes in fields doubled (RFC 4180)"
        raise DataProcessingError(
            f"reading the csv source failed: the row that ends in line {found.line} has a quote inside a "
            f"field that is not doubled; {remedy}, or check separator and quote",
            operation="reading the csv source",
        )


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
