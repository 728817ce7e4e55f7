"""``techdeck stats``, ``trend`` and ``metrics``: how much runs and fails, here and for Prometheus."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import styled
from techdeck_tasks.metrics.exporter import MetricsServer
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Tell Prometheus.", no_args_is_help=True)

DEFAULT_ADDRESS = "127.0.0.1:9464"

HoursOption = Annotated[int, typer.Option("--hours", min=1, max=87_600, help="How far back.")]
CodeOption = Annotated[str | None, typer.Option("--code", help="Only errors of this code.")]
SeverityOption = Annotated[str | None, typer.Option("--severity", help="low, medium, high or critical.")]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Only this service.")]
OperationOption = Annotated[str | None, typer.Option("--operation", help="Only this task or operation.")]
HipaaOption = Annotated[
    bool | None, typer.Option("--hipaa/--no-hipaa", help="Only errors that do, or do not, touch health data.")
]

_BARS = "▁▂▃▄▅▆▇█"


def stats(
    hours: HoursOption = 24,
    code: CodeOption = None,
    severity: SeverityOption = None,
    service: ServiceOption = None,
    operation: OperationOption = None,
    hipaa: HipaaOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what went wrong: rates, codes, services, and how it develops."""
    runtime = runtime_of(create_app())
    now = runtime.clock.now()
    statistics = runtime.metrics.get_error_statistics(
        {"start": now - timedelta(hours=hours), "end": now},
        _filters(code, severity, service, operation, hipaa),
    )
    if json_output:
        print_json(statistics)
        return
    _show(statistics, hours)


def trend(
    hours: HoursOption = 24,
    code: CodeOption = None,
    severity: SeverityOption = None,
    service: ServiceOption = None,
    operation: OperationOption = None,
    hipaa: HipaaOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show the error rate of each of the last hours."""
    metrics = runtime_of(create_app()).metrics
    entries = metrics.get_error_rate_trend(hours, _filters(code, severity, service, operation, hipaa))
    if json_output:
        print_json(entries)
        return
    table = Table()
    table.add_column("hour (UTC)")
    for heading in ("errors", "executions", "error rate"):
        table.add_column(heading, justify="right")
    table.add_column("")
    bars = sparkline([entry["error_rate_percentage"] for entry in entries])
    for entry, bar in zip(entries, bars, strict=True):
        table.add_row(
            entry["hour"][:16].replace("T", " "),
            f"{entry['error_count']:,}",
            f"{entry['total_requests']:,}",
            f"{entry['error_rate_percentage']:.2f} %",
            bar,
        )
    out.print(table)


@app.command("serve")
def serve(
    address: Annotated[
        str,
        typer.Option(help="HOST:PORT to listen at; there is no login.", envvar="TECHDECK_METRICS_ADDRESS"),
    ] = DEFAULT_ADDRESS,
) -> None:
    """Serve /metrics for Prometheus until Ctrl-C; one is enough for a whole deployment."""
    ending = {signal.SIGINT, signal.SIGTERM}
    # Before the server's thread starts: it inherits the mask, or a signal sent to it would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    server = MetricsServer(runtime_of(create_app()).prometheus, address)
    host = address.rpartition(":")[0]
    out.print(f"serving http://{host}:{server.port}/metrics", soft_wrap=True)
    signal.sigwait(ending)
    err.print("  stopping")
    server.stop()


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, the highest one full; nothing at all is the lowest bar."""
    highest = max(values, default=0.0) or 1.0
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)


def _filters(
    code: str | None, severity: str | None, service: str | None, operation: str | None, hipaa: bool | None
) -> dict[str, Any]:
    asked = {
        "error_code": code,
        "severity": severity,
        "service": service,
        "operation": operation,
        "hipaa_related": hipaa,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _show(statistics: Mapping[str, Any], hours: int) -> None:
    analysis = statistics["trend_analysis"]
    errors = sparkline([entry["error_count"] for entry in analysis["hourly"]])
    executions = sum(entry["total_requests"] for entry in analysis["hourly"])
    hipaa = statistics["hipaa_compliance_metrics"]
    out.print(
        Text.assemble(
            (f"{statistics['total_errors']:,} errors", "bold"),
            f" in {executions:,} executions of the last {hours} h: ",
            (f"{statistics['error_rate']:.2f} %", "bold"),
            f", {statistics['recoverability_rate']:.0f} % recoverable",
        )
    )
    out.print(f"by hour {errors} {analysis['direction']}", soft_wrap=True)
    if hipaa["total_hipaa_violations"]:
        codes = ", ".join(hipaa["hipaa_error_codes"])
        out.print(Text(f"{hipaa['total_hipaa_violations']:,} touch health data: {codes}", style="bold red"))
    if not statistics["total_errors"]:
        return
    table = Table("error code")
    table.add_column("errors", justify="right")
    table.add_column("share", justify="right")
    for entry in statistics["top_error_codes"]:
        table.add_row(entry["error_code"], f"{entry['count']:,}", f"{entry['percentage']:.1f} %")
    out.print(table)
    table = Table("severity")
    table.add_column("share", justify="right")
    for severity, share in statistics["severity_distribution"].items():
        table.add_row(styled(severity), f"{share:.1f} %")
    out.print(table)
    table = Table("service")
    table.add_column("errors", justify="right")
    for service, count in statistics["service_error_counts"].items():
        table.add_row(service, f"{count:,}")
    out.print(table)
