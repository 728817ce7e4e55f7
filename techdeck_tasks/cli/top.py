"""``techdeck top``: the service at a glance, renewed while one watches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import styled
from techdeck_tasks.metrics.prometheus import Labels
from techdeck_tasks.metrics.series import Kind
from techdeck_tasks.runtime import Runtime, create_app, runtime_of

_SHOWN = timedelta(minutes=5)
_STATES = "techdeck_breaker_state"
_QUEUES = "techdeck_queue_length"


def top(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Watch rates, breakers, queues and what waits, over the last five minutes; Ctrl-C ends it."""
    runtime = runtime_of(create_app())
    if json_output:
        print_json(_look(runtime))
    elif once:
        out.print(_screen(_look(runtime)))
    else:
        with suppress(KeyboardInterrupt), Live(_screen(_look(runtime)), console=out, screen=True) as live:
            while True:
                time.sleep(interval)
                live.update(_screen(_look(runtime)), refresh=True)


def _look(runtime: Runtime) -> dict[str, Any]:
    counts = runtime.metrics.counts(_SHOWN)
    services: dict[str, Counter[Kind]] = {}
    for series, count in counts.items():
        if series.kind in (Kind.SUCCESS, Kind.ERROR, Kind.RETRY):
            services.setdefault(series.service, Counter())[series.kind] += count
    gauges = {gauge.name: gauge.read() for gauge in runtime.prometheus.gauges()}
    return {
        "at": runtime.clock.now().isoformat(),
        "services": {name: _rates(kinds) for name, kinds in sorted(services.items())},
        "breakers": {name: state for (name, state), value in gauges.pop(_STATES).items() if value},
        "queues": {queue: int(length) for (queue,), length in gauges.pop(_QUEUES, {}).items()},
        "waiting": {name.removeprefix("techdeck_"): _only(values) for name, values in gauges.items()},
    }


def _rates(kinds: Counter[Kind]) -> dict[str, float]:
    executions = kinds[Kind.SUCCESS] + kinds[Kind.ERROR]
    minutes = _SHOWN / timedelta(minutes=1)
    return {
        "executions_per_minute": executions / minutes,
        "retries_per_minute": kinds[Kind.RETRY] / minutes,
        "error_rate_percentage": 100 * kinds[Kind.ERROR] / executions if executions else 0.0,
    }


def _only(values: Mapping[Labels, float]) -> int:
    return int(values[()])


def _screen(seen: Mapping[str, Any]) -> RenderableType:
    services = Table("service")
    for heading in ("executions/min", "retries/min", "error rate"):
        services.add_column(heading, justify="right")
    for name, rates in seen["services"].items():
        services.add_row(
            name,
            f"{rates['executions_per_minute']:.1f}",
            f"{rates['retries_per_minute']:.1f}",
            f"{rates['error_rate_percentage']:.2f} %",
        )
    waiting = Table("waiting")
    waiting.add_column("", justify="right")
    for queue, length in seen["queues"].items():
        waiting.add_row(f"queue {queue}", f"{length:,}")
    for name, value in seen["waiting"].items():
        waiting.add_row(name.replace("_", " "), f"{value:,}")
    breakers = Table("breaker", "state")
    for name, state in seen["breakers"].items():
        breakers.add_row(name, styled(state))
    shown: list[RenderableType] = [Text(f"{seen['at'][:19].replace('T', ' ')} UTC, last 5 minutes"), services]
    if seen["breakers"]:
        shown.append(breakers)
    return Group(*shown, waiting)
