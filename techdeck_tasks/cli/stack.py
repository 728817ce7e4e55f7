"""``techdeck up``: the whole service on one machine, for as long as the command runs."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from techdeck_tasks.cli.console import err, out
from techdeck_tasks.devservices.stack import Stack


def up(
    data_dir: Annotated[
        Path, typer.Option(help="Keeps the data; created where missing.", envvar="TECHDECK_DATA_DIR")
    ] = Path(".techdeck"),
    concurrency: Annotated[int, typer.Option(min=1, help="Pipeline tasks at a time.")] = 2,
    metrics_port: Annotated[
        int,
        typer.Option(min=1, max=65535, help="Where beat serves Prometheus on loopback, if it is free."),
    ] = 9464,
) -> None:
    """Start embedded PostgreSQL and Redis, both workers and beat; Ctrl-C stops them.

    The workers, and the commands that are run in this folder, get the TECHDECK_ settings it is started with.
    """
    with Stack(
        data_dir,
        concurrency=concurrency,
        metrics_port=metrics_port,
        on_step=lambda step: err.print(f"  {step}"),
    ) as settings_file:
        out.print(f"running; settings in {settings_file}", soft_wrap=True)
        out.print(
            "in this folder, 'techdeck run FILE.yaml' and 'techdeck audit list' find them by themselves; "
            "Ctrl-C stops the service",
            soft_wrap=True,
        )
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        err.print("  stopping")
