"""``techdeck worker``: the processes of the service, in the foreground."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from celery import Celery, signals
from celery.worker import WorkController

from techdeck_tasks.celeryconfig import AUDIT_QUEUE, PIPELINE_QUEUE, Role
from techdeck_tasks.cli.console import complain, out
from techdeck_tasks.cli.exits import Exit, Terminated
from techdeck_tasks.process import share_cores
from techdeck_tasks.runtime import create_app, runtime_of
from techdeck_tasks.settings import SettingsError, load_settings
from techdeck_tasks.tasks.broker import outages_told
from techdeck_tasks.tasks.messaging import take_plain_commands

app = typer.Typer(help="Run a worker process in the foreground.", no_args_is_help=True)

ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Tasks at a time.")]
NameOption = Annotated[str, typer.Option("--name", help="Node name; %h is the host.")]


@app.command("pipeline")
def pipeline(concurrency: ConcurrencyOption = 2, name: NameOption = "pipeline@%h") -> None:
    """Run pipelines and stages."""
    share_cores(concurrency)
    celery = create_app(role=Role.PIPELINE)
    _ = runtime_of(celery).sealer  # a worker that can seal no audit event must not take a task
    _run(celery, PIPELINE_QUEUE, name, "--concurrency", str(concurrency))


@app.command("audit")
def audit(name: NameOption = "audit@%h") -> None:
    """Write the audit log."""
    celery = create_app(role=Role.AUDIT)
    _ = runtime_of(celery).checkpoint_signer  # as above: rows that nobody signs prove nothing
    _run(celery, AUDIT_QUEUE, name, "--pool", "threads", "--concurrency", "1")


def _run(celery: Celery, queue: str, name: str, *options: str) -> None:
    level = runtime_of(celery).settings.log_level
    common = ["--queues", queue, "--hostname", name, "--loglevel", level]
    run_worker(celery, *common, *options)


def run_worker(celery: Celery, *options: str) -> None:
    """Run a worker until it is told to end.

    Raises:
        typer.Exit: it ended by an error: what supervises it should start it again.
    """
    workers: list[WorkController] = []
    asked: list[bool] = []

    def keep(instance: WorkController, **_: Any) -> None:
        workers.append(instance)

    def note(**_: Any) -> None:
        asked.append(True)

    signals.celeryd_after_setup.connect(keep)
    signals.worker_shutting_down.connect(note)  # sent for a signal, and not for an error
    celery.worker_main(["worker", *options])  # keeps the exit code to itself
    if not asked and any(worker.exitcode for worker in workers):
        raise typer.Exit(Exit.FAILED)


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


@app.command("flower")
def flower(
    address: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen.")] = 5555,
) -> None:
    """Show workers and tasks in a browser; needs TECHDECK_FLOWER_BASIC_AUTH, and no key."""
    try:
        from techdeck_tasks.web.flower import serve  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"Flower is not installed ({error.name}); pip install 'techdeck-tasks[web]'"
        ) from None
    with suppress(KeyboardInterrupt, Terminated):  # how it is ended
        serve(load_settings(), address=address, port=port)


@app.command("ping")
def ping(
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 5.0,
) -> None:
    """Say which workers of this host answer; fails where none does. For health checks: needs no key."""
    celery = Celery("techdeck-ping", broker=load_settings().effective_broker_url.get_secret_value())
    take_plain_commands(celery)
    host = socket.gethostname()
    with outages_told("ping"):
        replies = celery.control.ping(pattern=f"*@{host}", matcher="glob", timeout=timeout, limit=1)
    if not replies:
        complain(f"no worker of host {host} answers within {timeout:g} s")
        raise typer.Exit(Exit.FAILED)
    for reply in replies:
        out.print(f"{next(iter(reply))} answers")
