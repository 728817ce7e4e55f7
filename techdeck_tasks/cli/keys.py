"""``techdeck keys``: the key files, and what is sealed by them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import Purpose
from techdeck_tasks.runtime import Runtime, create_app, runtime_of

app = typer.Typer(help="Make, list, rotate and destroy keys.", no_args_is_help=True)

PurposeArgument = Annotated[Purpose, typer.Argument(help="What the key is for.")]
KeyArgument = Annotated[str, typer.Argument(help="The key's id, as 'techdeck keys list' shows it.")]


@app.command("generate")
def generate() -> None:
    """Make the key files that are missing; existing ones stay as they are."""
    made = _runtime().key_folders.generate()
    for path in made:
        out.print(f"made {path}", soft_wrap=True)
    if not made:
        out.print("every key file is there; nothing was changed")


@app.command("list")
def show(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """List the keys that are here: ids, never the keys themselves."""
    held = list(_runtime().key_folders.sets())
    if as_json:
        print_json(
            [
                {
                    "purpose": purpose.value,
                    "key_id": key_id,
                    "active": key_id == keys.active,
                    "bytes": len(key),
                    "wrapped_by": keys.wrapped_by,
                    "file": str(path),
                }
                for purpose, path, keys in held
                for key_id, key in keys.keys.items()
            ]
        )
        return
    if not held:
        out.print("there is none here; make them: techdeck keys generate")
        return
    shown = Table(box=None)
    for heading in ("purpose", "key", "active", "bytes", "wrapped by", "file"):
        shown.add_column(heading, no_wrap=heading in ("purpose", "key"), overflow="fold")
    for purpose, path, keys in held:
        for key_id, key in keys.keys.items():
            active = "active" if key_id == keys.active else ""
            shown.add_row(purpose, key_id, active, str(len(key)), keys.wrapped_by or "-", str(path))
    out.print(shown)


@app.command("rotate")
def rotate(
    purpose: PurposeArgument,
    later: Annotated[
        bool,
        typer.Option(
            "--later", help="Only add the key: bring the file to every host first, then 'keys activate' it."
        ),
    ] = False,
) -> None:
    """Make a new key and seal with it from now on; old keys stay to open what they sealed.

    Running processes open with the new key at once where they see the same file; they seal with it after a
    restart.
    """
    if purpose is Purpose.BLIND_INDEX:
        raise ValidationError(
            "a new blind-index key would hide older rows from searches by user and subject; "
            "it is not rotated while the log is kept",
            field="purpose",
        )
    key_id = _runtime().key_folders.add(purpose, activate=not later)
    out.print(f"{purpose} key {key_id} was made{'' if later else ' and is active'}")
    if purpose is Purpose.AUDIT and not later:
        out.print("next: restart the workers, then 'techdeck keys reseal' to bring older rows to it")


@app.command("activate")
def activate(purpose: PurposeArgument, key_id: KeyArgument) -> None:
    """Seal with a key that is there already."""
    _runtime().key_folders.activate(purpose, key_id)
    out.print(f"{purpose} key {key_id} is active")


@app.command("reseal")
def reseal() -> None:
    """Seal the audit log's data keys to the active audit key; rows stay as they are."""
    result = _runtime().reseal_audit()
    out.print(f"{result.resealed} data keys are sealed to the active audit key now")
    if result.unopened:
        out.print(
            f"{len(result.unopened)} could not be opened by any private key here: bring the missing one"
        )
        raise typer.Exit(Exit.FAILED)


@app.command("destroy")
def destroy(
    purpose: PurposeArgument,
    key_id: KeyArgument,
    confirm: Annotated[str, typer.Option(help="The key's id again: what it sealed cannot be read any more.")],
) -> None:
    """Destroy a key that is not active. An audit key is refused while rows can be read by it alone."""
    if confirm != key_id:
        raise ValidationError(f"--confirm says {confirm!r}; it must say {key_id!r}", field="confirm")
    runtime = _runtime()
    if purpose is Purpose.AUDIT:
        runtime.check_audit_key_is_unused(key_id)
    runtime.key_folders.destroy(purpose, key_id)
    out.print(f"{purpose} key {key_id} was destroyed here; destroy its backups too")


def _runtime() -> Runtime:
    return runtime_of(create_app())
