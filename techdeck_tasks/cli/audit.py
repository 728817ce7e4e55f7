"""``techdeck audit``: search the log, and prove that nobody changed it."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.table import Table

from techdeck_tasks.audit.reader import AuditFilter
from techdeck_tasks.cli.console import out, print_json
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


@app.command("verify")
def verify(json_output: JsonOption = False) -> None:
    """Recompute every digest and chain. Needs no key. Exit code 0: untouched, 1: findings."""
    report = runtime_of(create_app()).verify_audit()
    if json_output:
        findings = [
            {"verdict": finding.verdict, "chain": finding.chain, "detail": finding.detail}
            for finding in report.findings
        ]
        print_json({"ok": report.ok, "rows": report.rows, "writers": report.writers, "findings": findings})
    elif report.ok:
        out.print(f"[green]audit log untouched[/]: {report.rows:,} rows in {report.writers} chains verified")
    else:
        table = Table(title=f"{len(report.findings)} findings in {report.rows:,} rows", title_justify="left")
        for heading in ("finding", "chain", "detail"):
            table.add_column(heading, overflow="fold")
        for finding in report.findings:
            table.add_row(finding.verdict, finding.chain, finding.detail)
        out.print(table)
    if not report.ok:
        raise typer.Exit(Exit.FAILED)
