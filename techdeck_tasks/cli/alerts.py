"""``techdeck alerts``: what is wrong, who was told, and who takes charge."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from techdeck_tasks.alerts.condition import Severity
from techdeck_tasks.alerts.silence import silenced
from techdeck_tasks.alerts.state import Alert
from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.exits import Exit
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption, record_action
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import NOTHING, styled
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="See what is wrong, and take charge of it.", no_args_is_help=True)

AlertArgument = Annotated[str, typer.Argument(help="The alert's id, or its first characters.")]


@app.command("list")
def list_alerts(
    resolved: Annotated[bool, typer.Option("--resolved", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(help="At most this many, the one seen last first; 1 to 1000.")] = 100,
    json_output: JsonOption = False,
) -> None:
    """List alerts, and the silences that hold. Exit code 0: none fires, 1: one does."""
    store = runtime_of(create_app()).alerts
    alerts, silences = store.search(resolved=resolved, limit=limit), store.silences()
    if json_output:
        print_json(
            {
                "alerts": [{**alert.to_dict(), "silenced": silenced(alert, silences)} for alert in alerts],
                "silences": [silence.to_dict() for silence in silences],
            }
        )
    else:
        for alert in alerts:
            told = "silenced" if silenced(alert, silences) else "told" if alert.notified_at else "not told"
            line = Text.assemble(
                f"{str(alert.alert_id)[:8]}  ",
                styled(alert.severity),
                "  ",
                styled(alert.state),
                f"  since {alert.first_seen:%Y-%m-%d %H:%M} UTC  {told}",
                f"  {alert.acknowledged_by} is in charge" if alert.acknowledged_by else "",
            )
            out.print(line, soft_wrap=True)
            out.print(Padding(Text(f"{alert.key}: {alert.message}"), (0, 0, 0, 4)))
        if not alerts:
            out.print("there is no alert")
        for silence in silences:
            what = ", ".join(part for part in (silence.alert_type, silence.subject) if part)
            until = f"{silence.until:%Y-%m-%d %H:%M} UTC"
            name, why = str(silence.silence_id)[:8], f"{silence.owner}: {silence.reason}"
            out.print(f"silence {name}: {what} until {until}, {why}", markup=False, soft_wrap=True)
    if any(alert.state == "firing" for alert in alerts):
        raise typer.Exit(Exit.FAILED)


@app.command("show")
def show(alert_id: AlertArgument, json_output: JsonOption = False) -> None:
    """Show one alert, and what became of each notice."""
    store = runtime_of(create_app()).alerts
    alert = store.get(alert_id)
    deliveries = store.deliveries(alert)
    if json_output:
        print_json({**alert.to_dict(), "deliveries": deliveries})
        return
    for name, value in alert.to_dict().items():
        out.print(f"{name:<16} {NOTHING if value is None else value}", markup=False, soft_wrap=True)
    for sent in deliveries:
        problem = f": {sent['problem']}" if sent["problem"] else ""
        line = f"{sent['created_at'][:19]}  {sent['notice']} to {sent['channel']} {sent['state']}{problem}"
        out.print(line, markup=False, soft_wrap=True)


@app.command("acknowledge")
def acknowledge(
    alert_id: AlertArgument, reason: ReasonOption, owner: OwnerOption, json_output: JsonOption = False
) -> None:
    """Take charge of one: no more reminders, no escalation. The action is recorded."""
    _tell(runtime_of(create_app()).alerts.acknowledge(alert_id, by=owner, reason=reason), json_output)


@app.command("silence")
def silence(
    reason: ReasonOption,
    owner: OwnerOption,
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=8760, help="How long from now.")],
    alert_type: Annotated[str | None, typer.Option("--type", help="Only alerts of this type.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Only alerts of this service, breaker, code ...")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Let nobody be told of certain alerts for a time. They are kept and recorded all the same."""
    made = runtime_of(create_app()).alerts.silence(
        alert_type=alert_type, subject=subject, period=timedelta(hours=hours), by=owner, reason=reason
    )
    if json_output:
        print_json(made.to_dict())
        return
    out.print(f"silence {made.silence_id} until {made.until:%Y-%m-%d %H:%M} UTC", soft_wrap=True)


@app.command("unsilence")
def unsilence(
    silence_id: Annotated[str, typer.Argument(help="The silence's id, or its first characters.")],
    reason: ReasonOption,
    owner: OwnerOption,
) -> None:
    """End a silence now. The action is recorded."""
    ended = runtime_of(create_app()).alerts.unsilence(silence_id, by=owner, reason=reason)
    out.print(f"silence {ended.silence_id} is over", soft_wrap=True)


@app.command("test-channel")
def try_channel(
    owner: OwnerOption,
    name: Annotated[
        str | None, typer.Argument(help="Its name or how it begins: primary-1; default: every channel.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Send a test notice. Exit code 0: every channel took it, 1: one did not."""
    runtime = runtime_of(create_app())
    runtime.alert_channels.check()
    wanted = [c for c in runtime.alert_channels.by_name.values() if c.name.startswith(name or "")]
    if not wanted:
        raise ValidationError("there is no such channel; set TECHDECK_ALERT_CHANNELS", field="name")
    record_action(runtime, "alerts", "alerts.test_channel", owner, channels=[c.name for c in wanted])
    title = f"[{runtime.settings.tenant}] test"
    problems = {
        channel.name: channel.send(title, f"{owner} tests this channel", Severity.WARNING)
        for channel in wanted
    }
    if json_output:
        print_json({channel: {"accepted": not why, "problem": why} for channel, why in problems.items()})
    else:
        for channel, why in problems.items():
            out.print(f"{channel}: {why or 'accepted'}", markup=False, soft_wrap=True)
    if any(problems.values()):
        raise typer.Exit(Exit.FAILED)


@app.command("evaluate")
def evaluate(json_output: JsonOption = False) -> None:
    """Judge now, without waiting for beat, and send what is due. Exit code 0: none fires, 1: one does."""
    done = runtime_of(create_app()).alert_evaluator.evaluate(timedelta(0))
    if json_output:
        print_json(asdict(done))
    else:
        out.print(
            f"{done.firing} firing ({done.fired} new), {done.resolved} resolved; "
            f"{done.delivered} notices delivered, {done.failed} not"
        )
        for name in done.unknown:
            out.print(f"unknown: {name.replace('_', ' ')}")
    if done.firing:
        raise typer.Exit(Exit.FAILED)


def _tell(alert: Alert, json_output: bool) -> None:
    if json_output:
        print_json(alert.to_dict())
        return
    out.print(f"{alert.key} is in the charge of {alert.acknowledged_by}", markup=False, soft_wrap=True)
