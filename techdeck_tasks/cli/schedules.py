"""``techdeck schedule``: pipelines that beat starts again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption, record_action
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.pipeline.definition import load_definition
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Start pipelines again and again.", no_args_is_help=True)


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A definition with `schedule:`, five crontab fields in UTC.")],
    reason: ReasonOption,
    owner: OwnerOption,
) -> None:
    """Start a pipeline at each slot of its schedule from now on; replaces the schedule of the same name."""
    runtime = runtime_of(create_app())
    definition = load_definition(file)
    record_action(runtime, "pipeline", "schedule.add", owner, schedule=definition.name, reason=reason)
    schedule = runtime.schedules.add(definition)
    out.print(f"{schedule.name} is started at {schedule.cron} (UTC)")


@app.command("list")
def list_schedules(json_output: JsonOption = False) -> None:
    """List the schedules."""
    schedules = runtime_of(create_app()).schedules.list_schedules()
    if json_output:
        print_json(
            [
                {"name": one.name, "cron": one.cron, "last_slot": one.last_slot.isoformat()}
                for one in schedules
            ]
        )
        return
    if not schedules:
        out.print("nothing is scheduled")
        return
    table = Table()
    for heading in ("pipeline", "schedule (UTC)", "last slot, or added"):
        table.add_column(heading)
    for one in schedules:
        table.add_row(one.name, one.cron, one.last_slot.strftime("%Y-%m-%d %H:%M"))
    out.print(table)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="The pipeline's name.")],
    reason: ReasonOption,
    owner: OwnerOption,
) -> None:
    """End a schedule; runs it has started go on."""
    runtime = runtime_of(create_app())
    record_action(runtime, "pipeline", "schedule.remove", owner, schedule=name, reason=reason)
    runtime.schedules.remove(name)
    out.print(f"{name} is not started any more")
