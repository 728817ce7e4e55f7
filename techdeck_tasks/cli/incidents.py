"""``techdeck incidents``: security incidents, and who looks into them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from techdeck_tasks.audit.incidents.incident import Incident, IncidentState
from techdeck_tasks.audit.incidents.store import IncidentStore
from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.operators import OwnerOption, said
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import NOTHING, styled
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.runtime import create_app, runtime_of

app = typer.Typer(help="Look into security incidents.", no_args_is_help=True)

IncidentArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The incident's id, or how it alone begins.")
]
NoteOption = Annotated[
    str, typer.Option("--note", help="Why; redacted in the table, whole in the audit log.", callback=said)
]


@app.command("list")
def list_incidents(
    state: Annotated[IncidentState | None, typer.Option(help="Only those in this state.")] = None,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only unresolved ones whose deadline is over.")
    ] = False,
    limit: Annotated[int, typer.Option(help="At most this many, the newest; 1 to 1000.")] = 50,
    json_output: JsonOption = False,
) -> None:
    """List the newest incidents with the last day for notifying individuals (45 CFR 164.404)."""
    found = _store().search(state, overdue=overdue, limit=limit)
    now = SystemClock().now()
    if json_output:
        print_json([incident.to_dict(now) for incident in found])
        return
    if not found:
        out.print("there is none")
        return
    table = Table()
    for heading in ("incident", "discovered", "severity", "code", "service", "state", "assignee", "deadline"):
        table.add_column(heading, no_wrap=heading == "incident")
    for incident in found:
        deadline = f"{incident.notification_deadline:%Y-%m-%d}"
        table.add_row(
            incident.incident_id,
            f"{incident.discovered_at:%Y-%m-%d %H:%M}",
            styled(incident.severity),
            incident.error_code or NOTHING,
            incident.service,
            incident.state,
            incident.assignee or NOTHING,
            Text(f"{deadline} OVERDUE", style="bold red") if incident.overdue(now) else deadline,
        )
    out.print(table)


@app.command("show")
def show(incident_id: IncidentArgument, json_output: JsonOption = False) -> None:
    """Show one incident; 'techdeck audit show ID' shows what is sealed of it."""
    _tell(_store().get(incident_id), json_output=json_output)


@app.command("assign")
def assign(
    incident_id: IncidentArgument,
    assignee: Annotated[str, typer.Option("--to", help="Who investigates.")],
    note: NoteOption,
    owner: OwnerOption,
    json_output: JsonOption = False,
) -> None:
    """Give an incident to somebody to investigate; recorded."""
    _tell(_store().assign(incident_id, assignee=assignee, by=owner, note=note), json_output=json_output)


@app.command("resolve")
def resolve(
    incident_id: IncidentArgument,
    secured: Annotated[
        bool,
        typer.Option(
            "--secured/--unsecured", help="Whether the information was unreadable to others (45 CFR 164.402)."
        ),
    ],
    note: NoteOption,
    owner: OwnerOption,
    json_output: JsonOption = False,
) -> None:
    """End an investigation for good; recorded."""
    _tell(_store().resolve(incident_id, secured=secured, by=owner, note=note), json_output=json_output)


@app.command("dismiss")
def dismiss(
    incident_id: IncidentArgument, note: NoteOption, owner: OwnerOption, json_output: JsonOption = False
) -> None:
    """Say for good that it was no incident; recorded."""
    _tell(_store().dismiss(incident_id, by=owner, note=note), json_output=json_output)


def _store() -> IncidentStore:
    """Return the store with everything in it that is in the log by now."""
    store = runtime_of(create_app()).incidents
    store.catch_up()
    return store


def _tell(incident: Incident, *, json_output: bool) -> None:
    facts = incident.to_dict(SystemClock().now())
    if json_output:
        print_json(facts)
        return
    for name, value in facts.items():
        out.print(f"{name:<22} {NOTHING if value is None else value}", markup=False, soft_wrap=True)
