"""``techdeck keys``."""

from __future__ import annotations

import typer

from techdeck_tasks.cli.console import out
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.settings import load_settings

app = typer.Typer(help="Make the key files.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Make the key files."""


@app.command("generate")
def generate() -> None:
    """Make the key files that are missing; existing ones stay as they are."""
    settings = load_settings()
    made = generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
    for path in made:
        out.print(f"made {path}", soft_wrap=True)
    if not made:
        out.print("every key file is there; nothing was changed")
