"""The stage that reads the source: CSV, JSON, JSONL or Parquet, from a path or any URL of fsspec."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import Field

from techdeck_tasks.errors import DataProcessingError, ValidationError
from techdeck_tasks.pipeline import location
from techdeck_tasks.pipeline.artifacts import ArtifactRef
from techdeck_tasks.pipeline.frame_errors import frame_errors
from techdeck_tasks.pipeline.registry import StageContext, StageParams, StageResult, stage
from techdeck_tasks.pipeline.stages.dtypes import DtypeName, dtype_of

INFERENCE_ROWS = 10_000


class DatasetLoadParams(StageParams):
    """Parameters of `dataset_load`.

    Attributes:
        has_header: CSV: the first row has the names.
        columns: CSV: the names of the columns, in order; needed without a header.
        separator: CSV: one character.
        comment_prefix: CSV: rows that begin so are left out.
        null_values: CSV: texts that mean "missing".
        dtypes: types of columns by name; the others are inferred from the first 10,000 rows, and from the
            whole file where a later value does not fit.
    """

    has_header: bool = True
    columns: list[str] | None = Field(None, min_length=1)
    separator: str = Field(",", min_length=1, max_length=1)
    comment_prefix: str | None = Field(None, min_length=1, max_length=5)
    null_values: list[str] = Field(default_factory=lambda: [""])
    dtypes: dict[str, DtypeName] = Field(default_factory=dict)


@stage("dataset_load", params=DatasetLoadParams, summary="read the source into an artifact")
def dataset_load(context: StageContext, params: DatasetLoadParams) -> StageResult:
    """Fetch the source, if it is remote, and write its rows as an artifact.

    Raises:
        ValidationError: there is no such file, or it is no file of its format.
        DataProcessingError: its rows cannot be read.
        ServiceUnavailableError, ConnectionFailedError, TimeoutError: no service now; worth a retry.
    """
    source = context.source
    form = source.effective_format
    if location.is_remote(source.url):
        path = context.workspace / f"source.{form}"
        location.fetch(source.url, path)
    else:
        path = location.local_path(source.url)
        if not path.is_file():
            raise ValidationError(f"there is no file {path}; check source.url", field="source.url")
    size = path.stat().st_size
    if size == 0:
        raise ValidationError(f"{location.display(source.url)} is empty", field="source.url")
    context.report_progress(0, None)
    output = _load(context, params, path, form)
    report = {"rows": output.rows, "format": form, "source_bytes": size}
    return StageResult(output, report)


def _load(context: StageContext, params: DatasetLoadParams, path: Path, form: str) -> ArtifactRef:
    with frame_errors(f"reading the {form} source"):
        if form != "csv":
            return context.write(_scan(path, form, params))
        try:
            return context.write(_scan_csv(path, params, INFERENCE_ROWS))
        except DataProcessingError:
            # A value further down does not fit the type of the first rows: look at all of them.
            return context.write(_scan_csv(path, params, None))


def _scan(path: Path, form: str, params: DatasetLoadParams) -> pl.LazyFrame:
    if form == "parquet":
        frame = pl.scan_parquet(path, glob=False)
    elif form == "jsonl":
        frame = pl.scan_ndjson(path, infer_schema_length=None)
    else:
        frame = pl.read_json(path, infer_schema_length=None).lazy()
    return frame.cast({name: dtype_of(dtype) for name, dtype in params.dtypes.items()})


def _scan_csv(path: Path, params: DatasetLoadParams, inference_rows: int | None) -> pl.LazyFrame:
    return pl.scan_csv(
        path,
        has_header=params.has_header,
        new_columns=params.columns,
        separator=params.separator,
        comment_prefix=params.comment_prefix,
        null_values=params.null_values,
        schema_overrides={name: dtype_of(dtype) for name, dtype in params.dtypes.items()},
        infer_schema_length=inference_rows,
        glob=False,
    )
