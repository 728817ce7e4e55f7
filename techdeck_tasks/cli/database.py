"""``techdeck db``."""

from __future__ import annotations

import typer

from techdeck_tasks.cli.console import out
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database
from techdeck_tasks.storage.migration import upgrade as apply_migrations

app = typer.Typer(help="Migrate the database.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Migrate the database."""


@app.command("upgrade")
def upgrade() -> None:
    """Apply the migrations that are missing, all or none."""
    revision = apply_migrations(connect_database(load_settings()))
    out.print(f"schema at revision {revision}")
