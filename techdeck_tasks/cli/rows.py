"""``techdeck rows``: look at what a stage handed on, and at the bad rows that it set aside."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from techdeck_tasks.audit.reading.export import private_file
from techdeck_tasks.cli.console import counted, err
from techdeck_tasks.cli.control import RunArgument
from techdeck_tasks.cli.operators import OwnerOption, record_action
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data import data_url
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.data.workspace import private_workspace
from techdeck_tasks.pipeline.runs.rows import handed_on, set_aside
from techdeck_tasks.pipeline.stages.export import write_rows
from techdeck_tasks.pipeline.stages.row_check import REASONS_COLUMN
from techdeck_tasks.runtime import create_app, runtime_of

_FORMATS = ("csv", "jsonl", "parquet")


def rows(
    run_id: RunArgument,
    stage: Annotated[str, typer.Argument(help="The stage's name in the definition.")],
    owner: OwnerOption,
    bad: Annotated[bool, typer.Option("--bad", help="The rows that it set aside, with the reasons.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, the first.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .csv, .jsonl or .parquet file; it appears when complete, for its owner alone (0600)."
        ),
    ] = None,
) -> None:
    """Write the rows of a stage, as JSON Lines or to a file; they are of people, and that is on record."""
    form = "jsonl" if output is None else _format(output)
    runtime = runtime_of(create_app())
    store = runtime.pipeline_store
    ref = set_aside(store, runtime.artifacts, run_id, stage) if bad else handed_on(store, run_id, stage)
    record_action(runtime, "pipeline", "rows.read", owner, run_id=run_id, stage=stage, bad=bad)
    with private_workspace() as workspace:
        frame = runtime.artifacts.scan(ref, workspace)
        frame = frame if limit is None else frame.head(limit)
        path = workspace / f"rows.{form}"
        _write(frame, path, form)
        with path.open("rb") as file:
            if output is None:
                shutil.copyfileobj(file, sys.stdout.buffer)
                return
            with private_file(output) as target:
                shutil.copyfileobj(file, target.buffer)
        count = int(frame.select(pl.len()).collect(engine="streaming").item())
    err.print(f"{counted(count, 'row')} in {output}", markup=False, soft_wrap=True)


def _format(output: Path) -> str:
    form = data_url.data_format(str(output))
    if form not in _FORMATS:
        raise ValidationError(
            f"{output.name} names no format; end it with .csv, .jsonl or .parquet", field="output"
        )
    return form


def _write(frame: pl.LazyFrame, path: Path, form: str) -> None:
    with frame_errors(f"writing {form}"):
        if form == "csv" and REASONS_COLUMN in frame.collect_schema():
            frame = frame.with_columns(pl.col(REASONS_COLUMN).list.join(" "))
        write_rows(frame, path, form)
