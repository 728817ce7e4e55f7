"""``techdeck run``, ``status``, ``watch`` and ``list``: start pipelines and look at them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from sqlalchemy import text

from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.exits import Exit, Terminated
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.parking import Parked, parked_stages
from techdeck_tasks.cli.tables import STYLES, parts_done, show_run, show_runs
from techdeck_tasks.errors import ConnectionFailedError
from techdeck_tasks.pipeline.data.data_url import is_remote
from techdeck_tasks.pipeline.definition import PipelineDefinition, load_definition, parse_definition
from techdeck_tasks.pipeline.document import read_document
from techdeck_tasks.pipeline.runs.view import RunView
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.storage.database import transaction
from techdeck_tasks.tasks.broker import outages_told

POLL_S = 0.15
PATIENCE_S = 10.0
"""So long a run may wait for a worker before the user is told what may be wrong."""


def run(
    file: Annotated[Path, typer.Argument(help="The pipeline's definition, YAML or JSON.")],
    source: Annotated[
        str | None,
        typer.Option(help="Read this path or URL instead of the definition's source: see techdeck upload."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second run with the same key is the first one's.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and do not wait.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Run a pipeline and follow it. Exit code 0: succeeded, 1: failed, 2: bad input, 3: a server is away."""
    runtime = runtime_of(create_app())
    definition = _definition(file, source)
    run_id = submit(runtime, definition, idempotency_key)
    if detach:
        if json_output:
            print_json({"run_id": run_id})
        else:
            out.print(run_id)
        return
    view = follow(runtime, run_id, quiet=json_output)
    _show(view, json_output=json_output)
    if view.state != "succeeded":
        raise typer.Exit(Exit.FAILED)


def _definition(file: Path, source: str | None) -> PipelineDefinition:
    if source is None:
        return load_definition(file)
    document = read_document(file)
    if isinstance(document, dict):
        # As the shell's other paths, it begins in the working directory.
        document["source"] = source if is_remote(source) else str(Path(source).resolve())
    return parse_definition(document, folder=file.resolve().parent)


def status(
    run_id: Annotated[str, typer.Argument(help="The run's id.")],
    json_output: JsonOption = False,
) -> None:
    """Show a run and its stages."""
    runtime = runtime_of(create_app())
    view = runtime.pipeline.store.get_run(run_id)
    _show(view, json_output=json_output)
    if not json_output:
        _tell_parked(parked_stages(runtime, view))


def watch(
    run_id: Annotated[str, typer.Argument(help="The run's id.")],
    json_output: JsonOption = False,
) -> None:
    """Follow a run until it ends. Exit code 0: succeeded, 1: failed or cancelled."""
    runtime = runtime_of(create_app())
    runtime.pipeline.store.get_run(run_id)
    view = follow(runtime, run_id, quiet=json_output)
    _show(view, json_output=json_output)
    if view.state != "succeeded":
        raise typer.Exit(Exit.FAILED)


def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many, the youngest.")] = 20,
    json_output: JsonOption = False,
) -> None:
    """List runs, youngest first."""
    runs = runtime_of(create_app()).pipeline.store.list_runs(limit)
    if json_output:
        print_json([run.to_dict() for run in runs])
    elif runs:
        show_runs(out, runs)
    else:
        out.print("there is no run yet: techdeck run FILE")


def _show(view: RunView, *, json_output: bool) -> None:
    if json_output:
        print_json(view.to_dict())
        return
    show_run(out, view)
    if view.state == "failed":
        judged = next(
            (each.name for each in view.stages if (each.state, each.kind) == ("failed", "validation")), None
        )
        bad = "" if judged is None else f"its bad rows: techdeck rows {view.run_id} {judged} --bad\n"
        err.print(
            f"its story: techdeck logs {view.run_id}\n"
            f"{bad}"
            f"when it is mended: techdeck resume {view.run_id} --reason WHY",
            soft_wrap=True,
        )


def submit(runtime: Runtime, definition: PipelineDefinition, idempotency_key: str | None = None) -> str:
    """Start a pipeline and return its run id; where the key has a run already, that one's.

    The run is stored before anything is sent, so that no lost message can lose it.

    Raises:
        ServiceUnavailableError: PostgreSQL or the broker is away; there is no run.
        ConnectionFailedError: the broker went away meanwhile; the run has failed.
    """
    assert runtime.app is not None
    # Asked first: a run that nobody can be told of should not begin.
    with transaction(runtime.engine) as database:
        database.execute(text("SELECT 1"))
    with outages_told(definition.name), runtime.app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        _ = connection.default_channel
    run_id = str(uuid.uuid4())
    try:
        return str(runtime.pipeline.start(run_id, definition, idempotency_key)["run_id"])
    except ConnectionFailedError as error:
        runtime.pipeline.start_failed(run_id, error)
        raise


def follow(runtime: Runtime, run_id: str, *, quiet: bool = False) -> RunView:
    """Show a run's progress until it ends, and return it as it ended; who stops looking is told its id."""
    try:
        return _follow(runtime, run_id, quiet=quiet)
    except (KeyboardInterrupt, Terminated):
        err.print(
            f"run {run_id} goes on: techdeck watch {run_id}, or techdeck cancel {run_id} --reason WHY",
            soft_wrap=True,
        )
        raise


def _follow(runtime: Runtime, run_id: str, *, quiet: bool) -> RunView:
    with _progress(quiet=quiet) as progress:
        bars: dict[str, TaskID] = {}
        waiting = progress.add_task("waiting for a worker", total=None, state="")
        began, warned, told = time.monotonic(), False, set[str]()
        while True:
            view = runtime.pipeline.store.get_run(run_id)
            parked = parked_stages(runtime, view)
            if not quiet:
                _tell_parked({name: parked[name] for name in parked.keys() - told})
                told |= parked.keys()
            if view.state != "queued" or parked:
                progress.update(waiting, visible=False)
                _draw(progress, bars, view, parked)
            elif not warned and time.monotonic() - began > PATIENCE_S:
                warned = True
                err.print("no worker has taken the run yet: is one running? (techdeck doctor)")
            if view.finished:
                return view
            time.sleep(POLL_S)


def _tell_parked(parked: Mapping[str, Parked]) -> None:
    for name, by in parked.items():
        err.print(f"stage {name} is parked: {by}", markup=False, soft_wrap=True)


def _progress(*, quiet: bool) -> Progress:
    return Progress(
        TextColumn("  {task.description:<18}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=err,
        disable=quiet,
    )


def _draw(progress: Progress, bars: dict[str, TaskID], view: RunView, parked: Mapping[str, Parked]) -> None:
    for stage in view.stages:
        state = (
            f"[{STYLES.get(stage.state, '')}]{stage.state}[/]" if stage.state in STYLES else str(stage.state)
        )
        state += parts_done(stage)
        if stage.name in parked:
            state = f"[yellow]parked[/]{parts_done(stage)} [dim]{parked[stage.name].end}[/]"
        elif stage.state == "retrying":
            state += f" [dim]{stage.error_code}, attempt {stage.attempt + 1} follows[/]"
        total = stage.rows_total or sum(stage.parts.values()) or stage.rows_done or 1
        rows_done = stage.rows_done if stage.rows_total or not stage.parts else stage.parts.get("succeeded")
        done = total if stage.state == "succeeded" else min(rows_done or 0, total)
        if stage.rows_done and not stage.finished_at:
            state += f" [dim]{stage.rows_done:,} rows[/]"
        if stage.name not in bars:
            bars[stage.name] = progress.add_task(stage.name, total=total, state=state, start=False)
        bar = bars[stage.name]
        if stage.started_at is not None and not progress.tasks[bar].started:
            progress.start_task(bar)
        progress.update(bar, completed=done, total=total, state=state)
        if stage.finished_at is not None:
            progress.stop_task(bar)
