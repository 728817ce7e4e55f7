"""``techdeck audit hold|prune|erase|archived``: how the audit log ends, and what keeps it."""

from __future__ import annotations

import getpass
from datetime import datetime
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from techdeck_tasks.audit.reading.export import ExportFormat
from techdeck_tasks.audit.retention.erase import Erasure, ErasureScope
from techdeck_tasks.audit.retention.holds import Hold, HoldScope
from techdeck_tasks.audit.retention.prune import DueMonth
from techdeck_tasks.cli.audit_output import FormatOption, OutputOption, write_out
from techdeck_tasks.cli.console import counted, err, out, print_json
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption
from techdeck_tasks.cli.options import JsonOption, moment_option
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.runtime import Runtime, create_app, runtime_of

holds = typer.Typer(help="Legal holds: what is neither pruned nor erased.", no_args_is_help=True)

_SINCE = moment_option("Happened at this time or later (UTC).")
_UNTIL = moment_option("Happened before this time (UTC).")


@holds.command("add")
def add_hold(
    reason: ReasonOption,
    owner: OwnerOption,
    since: Annotated[datetime | None, _SINCE] = None,
    until: Annotated[datetime | None, _UNTIL] = None,
    run: Annotated[str | None, typer.Option(help="Only what belongs to this run.")] = None,
    user: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what is about this person.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Hold part of the log, or without options all of it; recorded before it takes effect."""
    scope = HoldScope(since=since, until=until, pipeline_id=run, user=user, subject=subject)
    hold = _runtime().holds.add(scope, reason=reason, by=owner)
    _tell_hold(hold, json_output=json_output)


@holds.command("list")
def list_holds(
    released: Annotated[bool, typer.Option("--all", help="Those that were released, too.")] = False,
    json_output: JsonOption = False,
) -> None:
    """List the legal holds in force, the oldest first."""
    found = _runtime().holds.search(active=None if released else True)
    if json_output:
        print_json([hold.to_dict() for hold in found])
        return
    if not found:
        out.print("no legal hold")
        return
    for hold in found:
        out.print(f"{hold.hold_id}  {_covered(hold)}", markup=False, soft_wrap=True)
        told = f"set {hold.created_at:%Y-%m-%d} by {hold.created_by}: {hold.reason}"
        if hold.released_at is not None:
            told += f"; released {hold.released_at:%Y-%m-%d} by {hold.released_by}: {hold.release_reason}"
        out.print(Padding(Text(told), (0, 0, 0, 4)))


@holds.command("release")
def release_hold(
    hold_id: Annotated[str, typer.Argument(metavar="ID", help="The hold's id.")],
    reason: ReasonOption,
    owner: OwnerOption,
    json_output: JsonOption = False,
) -> None:
    """End a legal hold; recorded before it takes effect."""
    _tell_hold(_runtime().holds.release(hold_id, reason=reason, by=owner), json_output=json_output)


def prune(
    owner: OwnerOption,
    month: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m"], help="Only this one, YYYY-MM; default: all due.")
    ] = None,
    despite_sink: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="With --month: drop it though the backup sink lost segments of its time; recorded.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is due, and drop nothing.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Archive and drop the months whose retention is over and that no legal hold keeps."""
    if despite_sink is not None and (month is None or not despite_sink.strip()):
        raise ValidationError("--despite-sink takes a reason, and one --month", field="despite_sink")
    pruner = _runtime().pruner
    if dry_run:
        _show_due(pruner.due(), json_output=json_output)
        return
    if month is None:
        dropped = pruner.prune_due(owner)
    else:
        dropped = [pruner.prune(month.date(), owner, despite_sink=despite_sink)]
    if json_output:
        print_json([{"month": f"{stone.month:%Y-%m}", "rows": stone.rows} for stone in dropped])
        return
    for stone in dropped:
        out.print(f"{stone.month:%Y-%m}: {counted(stone.rows, 'row')} archived and dropped")
    if not dropped:
        out.print("nothing was due")


def erase(
    reason: ReasonOption,
    owner: OwnerOption,
    since: Annotated[datetime, _SINCE],
    until: Annotated[datetime, _UNTIL],
    tenant: Annotated[
        str | None, typer.Option(help="Whose documents; default: the settings' tenant.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Only documents about this person, where persons have keys of their own."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and erase nothing.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Destroy the keys of a period's documents. Rows stay and verify; their content is gone for good."""
    runtime = _runtime()
    scope = ErasureScope(tenant=tenant or runtime.settings.tenant, since=since, until=until, subject=subject)
    eraser = runtime.eraser
    erasure = eraser.plan(scope) if dry_run else eraser.erase(scope, reason=reason, by=owner)
    if json_output:
        print_json(erasure.to_dict())
    else:
        _show_erasure(erasure, "would be erased" if dry_run else "erased")


def archived(
    month: Annotated[datetime, typer.Argument(formats=["%Y-%m"], help="YYYY-MM.")],
    kind: FormatOption = ExportFormat.JSONL,
    output: OutputOption = None,
) -> None:
    """Write a month that was archived and dropped, decrypted where the reader's key is at hand; recorded."""
    runtime = _runtime()
    archive = runtime.audit_archive
    if archive is None:
        raise ValidationError(
            "no archive is configured; set TECHDECK_AUDIT_ARCHIVE_URL", field="audit_archive_url"
        )
    with runtime.audit_reader(getpass.getuser()).archived(archive, month.date()) as entries:
        write_out(entries, kind, output)


def _runtime() -> Runtime:
    return runtime_of(create_app())


def _covered(hold: Hold) -> str:
    parts = [
        hold.occurred_from and f"since {hold.occurred_from:%Y-%m-%d}",
        hold.occurred_until and f"until {hold.occurred_until:%Y-%m-%d}",
        hold.pipeline_id and f"run {hold.pipeline_id}",
        hold.person_kind and f"one {hold.person_kind}",
    ]
    return ", ".join(part for part in parts if part) or "the whole log"


def _tell_hold(hold: Hold, *, json_output: bool) -> None:
    if json_output:
        print_json(hold.to_dict())
    elif hold.released_at is None:
        out.print(f"legal hold {hold.hold_id} is in force", soft_wrap=True)
    else:
        out.print(f"legal hold {hold.hold_id} is released", soft_wrap=True)


def _show_due(due: list[DueMonth], *, json_output: bool) -> None:
    if json_output:
        print_json([month.to_dict() for month in due])
        return
    for month in due:
        held = ", ".join(f"{hold.hold_id} ({hold.reason})" for hold in month.holds)
        kept = f"; kept by legal hold {held}" if held else ""
        out.print(f"{month.month:%Y-%m}: {counted(month.rows, 'row')}{kept}", markup=False, soft_wrap=True)
    if not due:
        out.print("nothing is due")


def _show_erasure(erasure: Erasure, done: str) -> None:
    out.print(f"{counted(erasure.rows, 'document')} under {counted(len(erasure.keys), 'data key')} {done}")
    if erasure.shared_keys:
        err.print(
            f"still readable: {counted(erasure.shared_rows, 'document')} under "
            f"{counted(erasure.shared_keys, 'data key')} that seal others too",
            style="yellow",
        )
