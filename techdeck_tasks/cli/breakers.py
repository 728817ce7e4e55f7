"""``techdeck breaker``: look at circuit breakers, and overrule them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption, record_action
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import NOTHING, styled
from techdeck_tasks.resilience.breaker import CircuitBreaker, State
from techdeck_tasks.resilience.breaker.core import LONGEST_NAME, is_breaker_name
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Look at circuit breakers, and overrule them.", no_args_is_help=True)


def _checked(name: str) -> str:
    if not is_breaker_name(name):
        raise typer.BadParameter(
            f"a breaker's name has 1 to {LONGEST_NAME} printable characters and no braces"
        )
    return name


NameArgument = Annotated[
    str, typer.Argument(help="The breaker's name: the service, or the task.", callback=_checked)
]
TtlOption = Annotated[
    float | None, typer.Option("--ttl", min=0.001, max=525_600, help="Minutes; default: until it is cleared.")
]


@app.command("list")
def list_breakers(json_output: JsonOption = False) -> None:
    """List every breaker that ever opened, with its state."""
    breakers = runtime_of(create_app()).breakers
    # Without Redis the registry tells of this process alone, which has none: better to fail.
    breakers.transitions({}, limit=1)
    statuses = breakers.get_status()
    if json_output:
        print_json(statuses)
        return
    if not statuses:
        out.print("no breaker has opened yet")
        return
    table = Table()
    for heading in ("breaker", "state", "failures", "opens", "again in"):
        table.add_column(heading, justify="right" if heading in ("failures", "opens", "again in") else "left")
    for name, status in statuses.items():
        wait_s = status.get("retry_after_seconds")
        table.add_row(
            name,
            styled(status["state"]),
            f"{status['failure_count']}/{status['threshold']}",
            str(status.get("trips", NOTHING)),
            f"{wait_s:.0f} s" if wait_s else NOTHING,
        )
    out.print(table)


@app.command("show")
def show(name: NameArgument, json_output: JsonOption = False) -> None:
    """Show one breaker and its last transitions."""
    breakers = runtime_of(create_app()).breakers
    status = breakers.get_status(name)
    history = [transition for owner, _, transition in breakers.transitions({}) if owner == name]
    if json_output:
        changes = [
            {
                "at": change.occurred_at.isoformat(),
                "from": change.old,
                "to": change.new,
                "reason": change.reason,
            }
            for change in history
        ]
        print_json({**status, "transitions": changes})
        return
    for key, value in status.items():
        out.print(f"{key:<22} {NOTHING if value is None else value}")
    for change in history:
        by = f", by {change.owner}" if change.owner else ""
        moment = change.occurred_at.strftime("%Y-%m-%d %H:%M:%S")
        out.print(f"{moment}  {change.old} -> {change.new}: {change.reason}{by}")


@app.command("reset")
def reset(name: NameArgument, reason: ReasonOption, owner: OwnerOption) -> None:
    """Close a breaker everywhere and forget its failures; an override stays."""
    breaker = _recorded("reset", name, owner, reason)
    breaker.manual_reset(owner=owner, reason=reason)
    _tell(breaker)


@app.command("open")
def force_open(name: NameArgument, reason: ReasonOption, owner: OwnerOption, ttl: TtlOption = None) -> None:
    """Let no call through, until it is cleared or the time is over."""
    _force(State.FORCED_OPEN, name, owner, reason, ttl)


@app.command("disable")
def disable(name: NameArgument, reason: ReasonOption, owner: OwnerOption, ttl: TtlOption = None) -> None:
    """Let every call through and count nothing."""
    _force(State.DISABLED, name, owner, reason, ttl)


@app.command("shadow")
def shadow(name: NameArgument, reason: ReasonOption, owner: OwnerOption, ttl: TtlOption = None) -> None:
    """Let every call through, and only report what the breaker would do."""
    _force(State.SHADOW, name, owner, reason, ttl)


@app.command("clear")
def clear(name: NameArgument, reason: ReasonOption, owner: OwnerOption) -> None:
    """End an override."""
    breaker = _recorded("clear", name, owner, reason)
    breaker.clear_override(owner=owner, reason=reason)
    _tell(breaker)


def _force(state: State, name: str, owner: str, reason: str, minutes: float | None) -> None:
    breaker = _recorded(state.value, name, owner, reason, minutes=minutes)
    breaker.force(state, owner=owner, reason=reason, ttl=timedelta(minutes=minutes) if minutes else None)
    _tell(breaker)


def _recorded(action: str, name: str, owner: str, reason: str, **facts: Any) -> CircuitBreaker:
    runtime = runtime_of(create_app())
    breaker = runtime.breakers.get(name)
    record_action(runtime, "breaker", f"breaker.{action}", owner, breaker=name, reason=reason, **facts)
    return breaker


def _tell(breaker: CircuitBreaker) -> None:
    out.print(f"{breaker.name} is {breaker.get_status()['state']}")
