"""``techdeck worker``: the processes of the service, in the foreground."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from techdeck_tasks.celeryconfig import AUDIT_QUEUE, PIPELINE_QUEUE, Role
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Run a worker process in the foreground.", no_args_is_help=True)

ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Tasks at a time.")]
NameOption = Annotated[str, typer.Option("--name", help="Node name; %h is the host.")]

# SIGTERM as the soft shutdown: finish within bounds, then hand messages back. Celery reads it on import.
_SOFT_SHUTDOWN = ("REMAP_SIGTERM", "SIGQUIT")


@app.command("pipeline")
def pipeline(concurrency: ConcurrencyOption = 2, name: NameOption = "pipeline@%h") -> None:
    """Run pipelines and stages."""
    os.environ.setdefault(*_SOFT_SHUTDOWN)
    celery = create_app(role=Role.PIPELINE)
    level = runtime_of(celery).settings.log_level
    celery.worker_main(
        ["worker", "--queues", PIPELINE_QUEUE, "--hostname", name, "--loglevel", level]
        + ["--concurrency", str(concurrency)]
    )


@app.command("audit")
def audit(name: NameOption = "audit@%h") -> None:
    """Write the audit log."""
    os.environ.setdefault(*_SOFT_SHUTDOWN)
    celery = create_app(role=Role.AUDIT)
    level = runtime_of(celery).settings.log_level
    celery.worker_main(
        ["worker", "--queues", AUDIT_QUEUE, "--hostname", name, "--loglevel", level]
        + ["--pool", "threads", "--concurrency", "1"]
    )


@app.command("beat")
def beat(
    schedule: Annotated[Path, typer.Option(help="File that remembers when entries ran last.")] = Path(
        ".techdeck/beat-schedule"
    ),
) -> None:
    """Send the scheduled tasks. Run one a deployment."""
    schedule.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    celery = create_app(role=Role.BEAT)
    level = runtime_of(celery).settings.log_level
    celery.start(["beat", "--schedule", str(schedule), "--loglevel", level])
