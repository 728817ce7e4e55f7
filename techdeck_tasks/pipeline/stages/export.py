"""The stage that writes the result where others read it: Parquet, CSV or JSONL, all or nothing."""

from __future__ import annotations

import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl
from polars.datatypes import DataTypeClass
from pydantic import model_validator

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data import data_url, location
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef
from techdeck_tasks.pipeline.data.digest import FollowingDigest, file_digest
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.data.parquet_files import concatenate
from techdeck_tasks.pipeline.data.transfer_errors import transfer_errors
from techdeck_tasks.pipeline.registry import StageContext, StageParams, StageResult, stage

# A spreadsheet runs a cell that begins so as a formula (OWASP, "CSV Injection"); also the full-width and
# small forms, and after what some readers take away: control characters and marks of no width.
_FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
_FORMULA = re.compile(
    r"^(?:[\t\r\n]|[\x00-\x1f\x7f\u200b-\u200f\ufeff]*"
    rf"[{_FORMULA_STARTS.replace('-', '')}\-])"
).pattern
# A signed number is no formula, and a quote before it would make it text; nor is one with a decimal comma.
_NUMBER = r"^[+-]?(?:[0-9][0-9.,]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?%?$"


class ExportParams(StageParams):
    """Parameters of `export`.

    Attributes:
        destination: path or fsspec URL of the file.
        overwrite: whether a file that is there is replaced; ``refuse`` takes the same bytes for done, so that
            a repeated attempt succeeds.
        format: default: by the suffix of the destination.
        formula_guard: CSV: ``escape`` puts ``'`` before a text that a spreadsheet would run as a formula.
    """

    destination: data_url.DataUrl
    format: Literal["csv", "jsonl", "parquet"] | None = None
    overwrite: Literal["replace", "refuse"] = "replace"
    formula_guard: Literal["escape", "off"] = "escape"

    def places(self) -> dict[str, str]:
        """Return the destination."""
        return {"destination": self.destination}

    @property
    def effective_format(self) -> str | None:
        """The format, given or by the suffix."""
        return self.format or data_url.data_format(self.destination)

    @model_validator(mode="after")
    def _known_format(self) -> ExportParams:
        if self.effective_format not in ("csv", "jsonl", "parquet"):
            raise ValueError("the suffix of destination names no format; set format to csv, jsonl or parquet")
        if data_url.is_compressed(self.destination):
            raise ValueError(
                "export does not compress: leave .gz or .zst away, Parquet is compressed by itself"
            )
        return self


@stage("export", params=ExportParams, summary="write the result to a file or URL, all or nothing")
def export(context: StageContext, params: ExportParams) -> StageResult:
    """Write the input to the destination; running it twice leaves the same file.

    Raises:
        ValidationError: another file is there and may not be replaced, CSV cannot hold a nested column, or
            the folder cannot be made.
        ServiceUnavailableError, ConnectionFailedError: the destination could not be reached.
    """
    ref = context.input_ref()
    form = str(params.effective_format)
    location.require_replaceable(params.destination)
    staging = location.staging_folder(params.destination, context.workspace)
    with transfer_errors(params.destination):
        handle, name = tempfile.mkstemp(dir=staging, prefix=".export-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        with frame_errors(f"writing the {form} export"):
            guarded, digest = _written(context, ref, temporary, form, params)
        size = temporary.stat().st_size
        if params.overwrite == "replace":
            location.publish(temporary, params.destination)
        elif not location.publish_new(temporary, params.destination, context.boundary):
            _require_same(params.destination, digest, context)
    finally:
        temporary.unlink(missing_ok=True)
    report = {
        "rows": ref.rows,
        "destination": data_url.display(params.destination),
        "format": form,
        "size_bytes": size,
        "sha256": digest,
        "cells_guarded": guarded,
    }
    return StageResult(ref, report)


def _written(
    context: StageContext, ref: ArtifactRef, target: Path, form: str, params: ExportParams
) -> tuple[int, str]:
    """Write the rows; return how many cells were guarded, and the file's digest."""
    if form == "parquet" and (digest := _copied(context, ref, target)) is not None:
        return 0, digest
    guarded = write_rows(context.input(), target, form, formula_guard=params.formula_guard != "off")
    return guarded, file_digest(target)


def _copied(context: StageContext, ref: ArtifactRef, target: Path) -> str | None:
    """Put the artifact's files together as they are: they are Parquet already; return the digest.

    None: their columns differ.
    """
    copies = [partial(context.artifacts.copy, part, workspace=context.workspace) for part in ref.files]
    with FollowingDigest(target) as digest:
        return digest.hexdigest() if concatenate(copies, target, digest.follow) else None


def _require_same(destination: str, digest: str, context: StageContext) -> None:
    present = context.workspace / "present"
    location.fetch(destination, present, boundary=context.boundary)
    if file_digest(present) != digest:
        raise ValidationError(
            f"another file is at {data_url.display(destination)}; choose another destination, "
            "or set overwrite to replace",
            field="params.overwrite",
            validation_rule="overwrite",
        )


def write_rows(frame: pl.LazyFrame, path: Path, form: str, *, formula_guard: bool = True) -> int:
    """Write rows to a file as csv, jsonl or parquet; return how many cells of CSV were guarded.

    Raises:
        ValidationError: CSV or JSON cannot hold a column.
        PolarsError: the rows could not be computed.
    """
    guarded = 0
    if form == "csv":
        frame, guarded = _fit_for_csv(frame, formula_guard=formula_guard)
    elif form == "jsonl" and (unfit := sum(map(_has_bytes, frame.collect_schema().values()))):
        raise ValidationError(
            f"JSON cannot hold bytes, and {unfit} columns have some; export as parquet, or leave them "
            "out with a select step",
            field="params.format",
        )
    # By a path, Polars' threads may still make the file after an error was raised here.
    with path.open("wb") as file:
        if form == "csv":
            frame.sink_csv(file)
        elif form == "jsonl":
            frame.sink_ndjson(file)
        else:
            frame.sink_parquet(file)
    return guarded


def _has_bytes(dtype: pl.DataType | DataTypeClass) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(map(_has_bytes, dtype.to_schema().values()))
    if isinstance(dtype, pl.List | pl.Array):
        return _has_bytes(dtype.inner)
    return dtype == pl.Binary


def _fit_for_csv(frame: pl.LazyFrame, *, formula_guard: bool) -> tuple[pl.LazyFrame, int]:
    schema = frame.collect_schema()
    unfit = (pl.Binary, pl.Duration)
    if nested := [name for name, dtype in schema.items() if dtype.is_nested() or dtype in unfit]:
        raise ValidationError(
            f"CSV cannot hold nested columns, bytes and durations, and {len(nested)} of {len(schema)} are; "
            "export as parquet or jsonl, or leave them out with a select step",
            field="params.format",
        )
    if not formula_guard:
        return frame, 0
    text = [name for name, dtype in schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
    dangerous = {
        name: pl.col(name).cast(pl.String).str.contains(_FORMULA)
        & ~pl.col(name).cast(pl.String).str.contains(_NUMBER)
        for name in text
    }
    if not dangerous:
        return _safe_names(frame, schema), 0
    count = frame.select(pl.sum_horizontal(mask.sum() for mask in dangerous.values())).collect(
        engine="streaming"
    )
    escaped = frame.with_columns(
        pl.when(mask)
        .then(pl.lit("'") + pl.col(name).cast(pl.String))
        .otherwise(pl.col(name).cast(pl.String))
        .alias(name)
        for name, mask in dangerous.items()
    )
    return _safe_names(escaped, schema), int(count.item() or 0)


def _safe_names(frame: pl.LazyFrame, schema: pl.Schema) -> pl.LazyFrame:
    """Guard the header row, too: a name of a column may come from the data's own header."""
    return frame.rename({name: f"'{name}" for name in schema if re.match(_FORMULA, name)})
