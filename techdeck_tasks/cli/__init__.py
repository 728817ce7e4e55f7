"""The command ``techdeck``: one module a group of commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from techdeck_tasks.cli import (
    alerts,
    audit,
    breakers,
    control,
    database,
    definitions,
    demo,
    doctor,
    incidents,
    keys,
    letters,
    metrics,
    pipelines,
    quarantine,
    reports,
    schedules,
    stack,
    tokens,
    top,
    uploads,
    web,
    worker,
)
from techdeck_tasks.cli.console import complain
from techdeck_tasks.cli.exits import Exit, exit_of
from techdeck_tasks.devservices import DevServiceError
from techdeck_tasks.errors import EncryptionError, TechDeckError
from techdeck_tasks.settings import DEFAULT_ENV_FILE, ENV_PREFIX, SettingsError

app = typer.Typer(
    name="techdeck",
    help="Reliable, accountable data pipelines on Celery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("up")(stack.up)
app.command("web")(web.web)
app.command("run")(pipelines.run)
app.command("upload")(uploads.upload)
app.command("status")(pipelines.status)
app.command("stats")(metrics.stats)
app.command("trend")(metrics.trend)
app.command("top")(top.top)
app.command("watch")(pipelines.watch)
app.command("list")(pipelines.list_runs)
app.command("cancel")(control.cancel)
app.command("resume")(control.resume)
app.command("logs")(control.logs)
app.command("reconcile")(control.reconcile)
app.command("validate")(definitions.validate)
app.command("stages")(definitions.stages)
app.add_typer(schedules.app, name="schedule")
app.command("doctor")(doctor.doctor)
app.add_typer(alerts.app, name="alerts")
app.add_typer(audit.app, name="audit")
app.add_typer(incidents.app, name="incidents")
app.add_typer(reports.app, name="report")
app.add_typer(breakers.app, name="breaker")
app.add_typer(letters.dead, name="dead")
app.add_typer(letters.interventions, name="interventions")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(tokens.app, name="token")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="db")
app.add_typer(metrics.app, name="metrics")
app.add_typer(worker.app, name="worker")


NO_SERVICE = "; no service runs in this folder: start one with techdeck up, or go to where it was started"


def _knows_a_service() -> bool:
    """Return whether anything but defaults says where the servers are."""
    told = ("ENV_FILE", "SECRETS_DIR", "DATABASE_URL", "REDIS_URL")
    return Path(DEFAULT_ENV_FILE).exists() or any(f"{ENV_PREFIX}{name}" in os.environ for name in told)


def main() -> None:
    """Run the command line; an expected failure is one line on standard error and a named exit code."""
    try:
        app()
    except (TechDeckError, SettingsError, DevServiceError) as error:
        code = exit_of(error)
        nothing_there = code is Exit.UNAVAILABLE or isinstance(error, EncryptionError)
        complain(str(error) + (NO_SERVICE if nothing_there and not _knows_a_service() else ""))
        sys.exit(code)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(Exit.INTERRUPTED)
