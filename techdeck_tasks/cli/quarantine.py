"""``techdeck quarantine``: messages that no worker could read."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption, record_action
from techdeck_tasks.cli.options import CursorOption, JsonOption, LimitOption
from techdeck_tasks.cli.paging import print_page
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.tasks.quarantine import QuarantinedMessage

MessageArgument = Annotated[str, typer.Argument(help="The message's id, or its first characters.")]

app = typer.Typer(help="Messages that no worker could read.", no_args_is_help=True)


@app.command("list")
def list_messages(
    limit: LimitOption = 50, cursor: CursorOption = None, json_output: JsonOption = False
) -> None:
    """List the newest; no contents are shown.

    With --cursor, JSON is an object of `messages` and `next`; without, a list.
    """
    found = runtime_of(create_app()).quarantine.page(limit, cursor or None)
    print_page("messages", found, _print, paged=cursor is not None, json_output=json_output)


@app.command("show")
def show(message_id: MessageArgument, owner: OwnerOption) -> None:
    """Show one with its headers and its body in base64, as JSON; the looking is recorded."""
    runtime = runtime_of(create_app())
    message = runtime.quarantine.get(message_id)
    _record(runtime, "show", owner, message)
    print_json(message.document())


@app.command("replay")
def replay(message_id: MessageArgument, reason: ReasonOption, owner: OwnerOption) -> None:
    """Send one to its queue again: a key was added, a task registered. The action is recorded."""
    celery = create_app()
    runtime = runtime_of(celery)
    message = runtime.quarantine.get(message_id)
    _record(runtime, "replay", owner, message, reason=reason)
    runtime.quarantine.replay(celery, message.message_id)
    out.print(f"{message.message_id} sent again to queue {message.queue}", soft_wrap=True)


@app.command("drop")
def drop(message_id: MessageArgument, reason: ReasonOption, owner: OwnerOption) -> None:
    """Forget one; the action is recorded."""
    runtime = runtime_of(create_app())
    message = runtime.quarantine.get(message_id)
    _record(runtime, "drop", owner, message, reason=reason)
    runtime.quarantine.take(message.message_id)
    out.print(f"dropped {message.message_id}")


def _record(runtime: Runtime, action: str, owner: str, message: QuarantinedMessage, **facts: str) -> None:
    found = message.summary()
    record_action(runtime, "quarantine", f"quarantine.{action}", owner, quarantined=found, **facts)


def _print(message: QuarantinedMessage) -> None:
    summary = message.summary()
    line = Text.assemble(
        (message.received_at.strftime("%Y-%m-%d %H:%M:%S"), "dim"),
        f"  {message.message_id[:8]}  ",
        (summary["task_name"] or "-", "bold"),
        f"  {summary['size_bytes']} bytes from {message.queue}",
    )
    out.print(line, soft_wrap=True)
    out.print(Text(f"    {message.reason}"), soft_wrap=True)
