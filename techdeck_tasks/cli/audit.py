"""``techdeck audit``: search the log, and prove that nobody changed it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from techdeck_tasks.audit.proof.finding import VerifyReport
from techdeck_tasks.audit.proof.verify import Progress
from techdeck_tasks.audit.reading.export import ExportFormat
from techdeck_tasks.audit.reading.reader import AuditReader
from techdeck_tasks.audit.reading.search import AuditFilter
from techdeck_tasks.cli import audit_retention
from techdeck_tasks.cli.audit_filters import filtered
from techdeck_tasks.cli.audit_output import FormatOption, OutputOption, write_out
from techdeck_tasks.cli.console import counted, err, out, print_json
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.cli.options import JsonOption, moment_option
from techdeck_tasks.cli.tables import show_audit
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Search, verify and retain the audit log.", no_args_is_help=True)
app.add_typer(audit_retention.holds, name="hold")
for command in (audit_retention.prune, audit_retention.erase, audit_retention.archived):
    app.command()(command)


@app.command("list")
@filtered
def list_entries(
    wanted: AuditFilter,
    limit: Annotated[int, typer.Option(help="At most this many, the newest; 1 to 10000.")] = 50,
    offset: Annotated[int, typer.Option(help="Leave out this many of the newest.")] = 0,
    cursor: Annotated[
        str | None,
        typer.Option(help="Go on where a page ended: the token it printed; '' for the first page."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the newest entries, decrypted where the reader's key is at hand. The reading is recorded.

    With --cursor, JSON is an object of `entries` and `next_cursor`; without, a list.
    """
    if offset and cursor is not None:
        raise ValidationError("--cursor and --offset do not go together; leave one out", field="cursor")
    reader = _reader()
    following = None
    if offset:
        entries = reader.search(wanted, limit=limit, offset=offset)
    else:
        page = reader.page(wanted, limit=limit, cursor=cursor or None)
        entries, following = page.entries, page.next_cursor
    if json_output:
        listed = [entry.to_dict() for entry in entries]
        print_json(listed if cursor is None else {"entries": listed, "next_cursor": following})
        return
    show_audit(out, entries)
    if not entries:
        out.print("no entry matches")
    if following:
        out.print(f"more: --cursor {following}", soft_wrap=True)


@app.command("show")
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The entry's event_id.")],
    json_output: JsonOption = False,
) -> None:
    """Show one entry with its whole document. The reading is recorded."""
    entry = _reader().get(event_id)
    if json_output:
        print_json(entry.to_dict())
        return
    for name, value in entry.to_dict().items():
        if name != "document" and value is not None:
            out.print(f"{name:<16} {value}", markup=False, soft_wrap=True)
    if entry.document is not None:
        print_json(entry.document)


@app.command("export")
@filtered
def export(
    wanted: AuditFilter,
    kind: FormatOption = ExportFormat.JSONL,
    output: OutputOption = None,
) -> None:
    """Write every matching entry, decrypted where the reader's key is at hand. The reading is recorded."""
    with _reader().export(wanted) as entries:
        write_out(entries, kind, output)


@app.command("status")
def status(json_output: JsonOption = False) -> None:
    """Tell what is on its way to the log: stream, audit workers, quarantine, and this machine's spool."""
    backlog = runtime_of(create_app()).audit_backlog()
    if json_output:
        print_json({**asdict(backlog), "redis_reachable": backlog.redis_reachable})
        return
    if not backlog.redis_reachable:
        out.print("[bold red]Redis does not answer[/]: events wait in the spool")
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in asdict(backlog).items():
        if value is not None:
            shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
            table.add_row(name.removesuffix("_s").replace("_", " "), shown + " s" * name.endswith("_s"))
    out.print(table)


@app.command("verify")
def verify(
    since: Annotated[
        datetime | None,
        moment_option(
            "Begin at the last signed checkpoint before this time (UTC); default: at the first row."
        ),
    ] = None,
    sink: Annotated[
        str | None,
        typer.Option(
            help="Compare with the backup sink at this URL too; default: the one of the settings.",
            envvar="TECHDECK_AUDIT_SINK_URL",
        ),
    ] = None,
    archive: Annotated[
        bool, typer.Option("--archive", help="Compare dropped months with their archive too.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Recompute every digest and chain, and compare them with what was signed.

    Needs no decryption key. Exit code 0: untouched, 1: findings, 2: not verified.
    """
    runtime = runtime_of(create_app())
    with _progress(shown=not json_output) as on_progress:
        report = runtime.verify_audit(
            since=since,
            sink_url=sink or runtime.settings.audit_sink_url,
            archive=runtime.audit_archive if archive else None,
            on_progress=on_progress,
        )
    if json_output:
        print_json(report.to_dict())
    else:
        _show_report(report)
    if not report.ok:
        raise typer.Exit(Exit.FAILED)


@contextmanager
def _progress(*, shown: bool) -> Iterator[Progress]:
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=err, transient=True, disable=not shown) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_report(report: VerifyReport) -> None:
    checked = (
        f"{counted(report.rows, 'row')} in {counted(report.writers, 'chain')}, "
        f"{counted(report.checkpoints, 'checkpoint')}"
    )
    if report.segments:
        checked += f", {counted(report.segments, 'segment')} of the backup sink"
    if report.losses:
        checked += f", {counted(report.losses, 'event')} that never arrived, on record as lost"
    if report.old_tombstones:
        checked += (
            f", {counted(report.old_tombstones, 'month')} archived by an older version, with tombstones "
            "in the database alone"
        )
    if report.ok:
        out.print(f"[green]audit log untouched[/]: {checked} verified")
        return
    table = Table(title=f"{counted(len(report.findings), 'finding')} in {checked}", title_justify="left")
    for heading in ("finding", "where", "detail"):
        table.add_column(heading, overflow="fold")
    for finding in report.findings:
        table.add_row(finding.verdict, Text(finding.chain), Text(finding.detail))
    out.print(table)


def _reader() -> AuditReader:
    return runtime_of(create_app()).audit_reader(getpass.getuser())
