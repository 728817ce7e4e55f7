"""``techdeck report``: compliance reports, and their sign-off."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from techdeck_tasks.audit.compliance.page import render_html
from techdeck_tasks.audit.compliance.store import ReportKind, ReportStore, StoredReport
from techdeck_tasks.audit.reading.export import private_file
from techdeck_tasks.audit.reading.search import read_time
from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.operators import OwnerOption, said
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Make and sign off compliance reports.", no_args_is_help=True)

ReportArgument = Annotated[str, typer.Argument(metavar="ID", help="The report's id, or how it alone begins.")]


class ReportFormat(StrEnum):
    """How a report is written."""

    HTML = "html"
    JSON = "json"


@app.command("generate")
def generate(
    start: Annotated[
        str, typer.Option("--from", help="A date (its midnight in UTC), or a time with its zone.")
    ],
    end: Annotated[str, typer.Option("--to", help="The same; exclusive.")],
    owner: OwnerOption,
    json_output: JsonOption = False,
) -> None:
    """Make and store the report of a period; recorded."""
    period = read_time("from", start), read_time("to", end)
    made = _store().make(ReportKind.ON_DEMAND, *period, by=owner)
    assert made is not None, "an on-demand report belongs to no slot that could be taken"
    if json_output:
        print_json(made.document)
    else:
        _tell(made)


@app.command("list")
def list_reports(
    limit: Annotated[int, typer.Option(help="At most this many, the newest; 1 to 1000.")] = 50,
    json_output: JsonOption = False,
) -> None:
    """List the newest reports."""
    found = _store().search(limit)
    if json_output:
        print_json([report.summary() for report in found])
        return
    if not found:
        out.print("there is none")
        return
    for report in found:
        signed = f"signed off by {report.reviewed_by}" if report.reviewed_by else "not signed off"
        out.print(f"{report.report_id}  {report.kind}  {signed}", markup=False, soft_wrap=True)
        period = f"{report.period_start:%Y-%m-%d %H:%M} to {report.period_end:%Y-%m-%d %H:%M}"
        out.print(f"    {period}, made {report.generated_at:%Y-%m-%d %H:%M}", soft_wrap=True)


@app.command("show")
def show(report_id: ReportArgument, json_output: JsonOption = False) -> None:
    """Show a report's figures and its sign-off."""
    report = _store().get(report_id)
    if json_output:
        print_json({**report.summary(), "report": report.document})
    else:
        _tell(report)


@app.command("export")
def export(
    report_id: ReportArgument,
    output: Annotated[
        Path, typer.Option(help="The file; it appears when complete, for its owner alone (0600).")
    ],
    kind: Annotated[
        ReportFormat, typer.Option("--format", help="JSON: the bytes that were hashed.")
    ] = ReportFormat.HTML,
) -> None:
    """Write a report as one self-contained HTML file, or as JSON."""
    report = _store().get(report_id)
    with private_file(output) as file:
        file.write(render_html(report) if kind is ReportFormat.HTML else report.text)
    err.print(f"report {report.report_id} in {output}", markup=False, soft_wrap=True)


@app.command("sign-off")
def sign_off(
    report_id: ReportArgument,
    note: Annotated[
        str, typer.Option("--note", help="What was concluded; kept in the audit log.", callback=said)
    ],
    owner: OwnerOption,
    sha256: Annotated[
        str | None, typer.Option(help="The digest on the copy that was read; another one is refused.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Put your name under a report, once; recorded. One that was changed since is refused."""
    signed = _store().sign_off(report_id, reviewer=owner, note=note, sha256=sha256)
    if json_output:
        print_json(signed.summary())
    else:
        out.print(f"{signed.report_id} signed off by {signed.reviewed_by}", markup=False)


def _store() -> ReportStore:
    runtime = runtime_of(create_app())
    # What is in the log by now is to be in the report.
    runtime.incidents.catch_up()
    return runtime.reports


def _tell(report: StoredReport) -> None:
    document = report.document
    signed = f"by {report.reviewed_by}: {report.review_note}" if report.reviewed_at else "not yet"
    common = [f"{code} {count:,}" for code, count in document["most_common_violations"]]
    incidents = document["incidents"]
    facts = {
        "report": report.report_id,
        "period": f"{report.period_start.isoformat()} to {report.period_end.isoformat()}",
        "errors": f"{document['total_errors']:,}",
        "HIPAA-related": f"{document['hipaa_violations_total']:,}",
        "violations": ", ".join(common) or "none",
        "incidents": f"{incidents['discovered']:,}, {incidents['overdue_now']:,} overdue",
        "sha256": report.sha256 if report.unchanged else "CHANGED since it was stored",
        "signed off": signed,
    }
    for name, value in facts.items():
        out.print(f"{name:<14} {value}", markup=False, soft_wrap=True)
