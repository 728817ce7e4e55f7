"""``techdeck dead`` and ``techdeck interventions``: tasks that ended for good, or wait for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.text import Text

from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption, record_action
from techdeck_tasks.cli.options import CursorOption, JsonOption, LimitOption
from techdeck_tasks.cli.paging import print_page
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.tasks.letters import Letter, LetterStore
from techdeck_tasks.tasks.replay import replay

LetterArgument = Annotated[str, typer.Argument(help="The letter's id, or its first characters.")]

dead = typer.Typer(name="dead", help="Tasks that failed for good.", no_args_is_help=True)
interventions = typer.Typer(name="interventions", help="Tasks that wait for a person.", no_args_is_help=True)


def _commands(
    group: typer.Typer, store_of: Callable[[Runtime], LetterStore], sending: str, verb: str
) -> None:
    @group.command("list")
    def list_letters(
        limit: LimitOption = 50,
        cursor: CursorOption = None,
        json_output: JsonOption = False,
    ) -> None:
        """List the newest; no arguments are shown.

        With --cursor, JSON is an object of `letters` and `next`; without, a list.
        """
        found = store_of(runtime_of(create_app())).page(limit, cursor or None)
        print_page("letters", found, _print, paged=cursor is not None, json_output=json_output)

    @group.command("show")
    def show(letter_id: LetterArgument, owner: OwnerOption) -> None:
        """Show one with its arguments, as JSON; the looking is recorded."""
        runtime = runtime_of(create_app())
        letter = store_of(runtime).get(letter_id)
        record_action(runtime, "letters", f"{group.info.name}.show", owner, letter_id=letter.letter_id)
        called = {name: letter.signature.get(name) for name in ("args", "kwargs")}
        print_json({**letter.summary(), **called})

    @group.command(sending, help=f"{verb} Asks the task's breaker first; the action is recorded.")
    def send(
        letter_id: LetterArgument,
        reason: ReasonOption,
        owner: OwnerOption,
        force: Annotated[bool, typer.Option("--force", help="Even while the breaker is open.")] = False,
    ) -> None:
        app = create_app()
        runtime = runtime_of(app)
        store = store_of(runtime)
        letter = store.get(letter_id)
        facts = {"letter_id": letter.letter_id, "task_name": letter.task_name, "reason": reason}
        record_action(runtime, "letters", f"{group.info.name}.{sending}", owner, **facts)
        task_id = replay(app, store, letter.letter_id, None if force else runtime.breakers)
        out.print(f"{letter.task_name} sent again as task {task_id}")

    @group.command("drop")
    def drop(letter_id: LetterArgument, reason: ReasonOption, owner: OwnerOption) -> None:
        """Forget one; the action is recorded."""
        runtime = runtime_of(create_app())
        letter = store_of(runtime).get(letter_id)
        facts = {"letter_id": letter.letter_id, "task_name": letter.task_name, "reason": reason}
        record_action(runtime, "letters", f"{group.info.name}.drop", owner, **facts)
        store_of(runtime).take(letter.letter_id)
        out.print(f"dropped {letter.letter_id}")


def _print(letter: Letter) -> None:
    line = Text.assemble(
        (letter.failed_at.strftime("%Y-%m-%d %H:%M:%S"), "dim"),
        f"  {letter.letter_id[:8]}  ",
        (letter.task_name, "bold"),
        f"  {letter.error['error_code']}  after {letter.attempts} attempts",
    )
    out.print(line, soft_wrap=True)
    out.print(Text(f"    {letter.error['message']}"), soft_wrap=True)


_commands(dead, lambda runtime: runtime.dead_letters, "replay", "Send one again, as a new task.")
_commands(
    interventions,
    lambda runtime: runtime.interventions,
    "resolve",
    "Let one go on, now that what it waited for is mended.",
)
