"""The command ``techdeck``: one module a group of commands."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import typer
from redis.exceptions import RedisError
from typer.core import TyperGroup
from typer.main import get_group

from techdeck_tasks.cli.console import complain
from techdeck_tasks.cli.exits import Exit, end_at_sigterm, exit_of
from techdeck_tasks.devservices import DevServiceError
from techdeck_tasks.errors import EncryptionError, ServiceUnavailableError, TechDeckError
from techdeck_tasks.process import set_defaults
from techdeck_tasks.settings import DEFAULT_ENV_FILE, ENV_PREFIX, SettingsError

_PANELS = {
    "The service": {
        "demo": "demo.demo",
        "up": "stack.up",
        "doctor": "doctor.doctor",
        "web": "web.web",
        "worker": "worker.app",
        "token": "tokens.app",
        "keys": "keys.app",
        "db": "database.app",
    },
    "Pipelines": {
        "run": "pipelines.run",
        "upload": "uploads.upload",
        "status": "pipelines.status",
        "watch": "pipelines.watch",
        "list": "pipelines.list_runs",
        "logs": "control.logs",
        "rows": "rows.rows",
        "cancel": "control.cancel",
        "resume": "control.resume",
        "reconcile": "control.reconcile",
        "validate": "definitions.validate",
        "stages": "definitions.stages",
        "schedule": "schedules.app",
    },
    "What goes wrong": {
        "stats": "metrics.stats",
        "trend": "metrics.trend",
        "top": "top.top",
        "metrics": "metrics.app",
        "alerts": "alerts.app",
        "breaker": "breakers.app",
        "dead": "letters.dead",
        "interventions": "letters.interventions",
        "quarantine": "quarantine.app",
    },
    "What is on record": {
        "audit": "audit.app",
        "incidents": "incidents.app",
        "report": "reports.app",
    },
}
"""By panel of the help and name of the command, the module of this package and what in it is the command."""

_PLACES = {name: (panel, place) for panel, places in _PANELS.items() for name, place in places.items()}


class _CommandsOnDemand(Mapping[str, Any]):
    """Imports a command's module when the command is asked for: all of them together take a second."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


@lru_cache
def _command(name: str) -> Any:
    panel, place = _PLACES[name]
    module, _, attribute = place.partition(".")
    found = getattr(import_module(f"{__name__}.{module}"), attribute)
    holder = typer.Typer()
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name, rich_help_panel=panel)
    else:
        holder.command(name, rich_help_panel=panel)(found)
    return get_group(holder).commands[name]


class _Commands(TyperGroup):
    """The group of all commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _CommandsOnDemand()  # type: ignore[assignment]  # nothing is ever added to it


app = typer.Typer(
    name="techdeck",
    cls=_Commands,
    help="Reliable, accountable data pipelines on Celery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def techdeck() -> None:
    """Reliable, accountable data pipelines on Celery."""


NO_SERVICE = "; no service runs in this folder: start one with techdeck up, or go to where it was started"


def _knows_a_service() -> bool:
    """Return whether anything but defaults says where the servers are."""
    told = ("ENV_FILE", "SECRETS_DIR", "DATABASE_URL", "REDIS_URL")
    return Path(DEFAULT_ENV_FILE).exists() or any(f"{ENV_PREFIX}{name}" in os.environ for name in told)


def main() -> None:
    """Run the command line; an expected failure is one line on standard error and a named exit code."""
    set_defaults()
    end_at_sigterm()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        _fail_at_file(error)
    except (TechDeckError, SettingsError, DevServiceError) as error:
        _fail(error)
    except RedisError as error:
        away = f"Redis does not answer ({type(error).__name__}); check TECHDECK_REDIS_URL and the server"
        _fail(ServiceUnavailableError(away, service_name="redis"))
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(Exit.INTERRUPTED)


def _fail_at_file(error: OSError) -> NoReturn:
    where = f"{error.filename}: " if error.filename else "the output cannot be written: "
    # What is still buffered would fail again, and be told with a traceback, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # who closed the pipe, as `head` does, has what they wanted
        complain(where + (os.strerror(error.errno) if error.errno else type(error).__name__))
    sys.exit(Exit.FAILED)


def _fail(error: Exception) -> NoReturn:
    code = exit_of(error)
    nothing_there = code is Exit.UNAVAILABLE or isinstance(error, EncryptionError)
    complain(str(error) + (NO_SERVICE if nothing_there and not _knows_a_service() else ""))
    sys.exit(code)
