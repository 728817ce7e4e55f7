"""``techdeck audit``: search the log, and prove that nobody changed it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from techdeck_tasks.audit.finding import VerifyReport
from techdeck_tasks.audit.reader import AuditFilter
from techdeck_tasks.audit.verify import Progress
from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import show_audit
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Search and verify the audit log.", no_args_is_help=True)


@app.command("list")
def list_entries(
    error_code: Annotated[str | None, typer.Option("--code", help="Only this error code.")] = None,
    error_id: Annotated[str | None, typer.Option(help="Only this error.")] = None,
    severity: Annotated[str | None, typer.Option(help="low, medium, high or critical.")] = None,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    pipeline_id: Annotated[str | None, typer.Option("--run", help="Only this run.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many, the newest; 1 to 10000.")] = 50,
    offset: Annotated[int, typer.Option(help="Leave out this many of the newest.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """List the newest entries, decrypted where the reader's key is at hand. The reading is recorded."""
    reader = runtime_of(create_app()).audit_reader(getpass.getuser())
    wanted = AuditFilter(
        error_code=error_code,
        error_id=error_id,
        severity=severity,
        service=service,
        pipeline_id=pipeline_id,
    )
    entries = reader.search(wanted, limit=limit, offset=offset)
    if json_output:
        print_json([entry.to_dict() for entry in entries])
    elif entries:
        show_audit(out, entries)
    else:
        out.print("no entry matches")


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
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="Begin at the last signed checkpoint before this time (UTC); default: at the first row.",
        ),
    ] = None,
    sink: Annotated[
        str | None,
        typer.Option(
            help="Compare with the backup sink at this URL too; default: the one of the settings.",
            envvar="TECHDECK_AUDIT_SINK_URL",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Recompute every digest and chain, and compare them with what was signed.

    Needs no decryption key. Exit code 0: untouched, 1: findings.
    """
    runtime = runtime_of(create_app())
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    with _progress(shown=not json_output) as on_progress:
        report = runtime.verify_audit(
            since=since, sink_url=sink or runtime.settings.audit_sink_url, on_progress=on_progress
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
    checked = f"{report.rows:,} rows in {report.writers} chains, {report.checkpoints:,} checkpoints"
    if report.segments:
        checked += f", {report.segments:,} segments of the backup sink"
    if report.ok:
        out.print(f"[green]audit log untouched[/]: {checked} verified")
        return
    table = Table(title=f"{len(report.findings)} findings in {checked}", title_justify="left")
    for heading in ("finding", "where", "detail"):
        table.add_column(heading, overflow="fold")
    for finding in report.findings:
        table.add_row(finding.verdict, Text(finding.chain), Text(finding.detail))
    out.print(table)
