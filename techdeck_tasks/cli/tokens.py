"""``techdeck token``: who may use the HTTP API and the dashboard."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from techdeck_tasks.cli.console import err, out, print_json
from techdeck_tasks.cli.operators import OwnerOption, record_action
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import NOTHING
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.web.tokens import Role, Token, TokenStore

app = typer.Typer(help="Let people and programs use the HTTP API and the dashboard.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Of whom it is for; the audit log names actors by it.")],
    role: Annotated[list[Role], typer.Option(help="What it may do; may be given several times.")],
    owner: OwnerOption,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 90,
    json_output: JsonOption = False,
) -> None:
    """Make a token and print it; it cannot be shown again."""
    runtime = runtime_of(create_app())
    record_action(runtime, "web", "token.create", owner, token=name, roles=sorted(role), days=days)
    token, secret = _store(runtime).create(name, role, timedelta(days=days), created_by=owner)
    if json_output:
        print_json({**_facts(runtime, token), "token": secret})
        return
    out.print(secret, markup=False, soft_wrap=True)
    err.print(f"valid until {token.expires_at:%Y-%m-%d %H:%M} UTC; keep it: it is not shown again")


@app.command("list")
def list_tokens(json_output: JsonOption = False) -> None:
    """List every token, without its secret."""
    runtime = runtime_of(create_app())
    tokens = [_facts(runtime, token) for token in _store(runtime).list()]
    if json_output:
        print_json(tokens)
        return
    if not tokens:
        out.print("there is none; make one: techdeck token create NAME --role operator")
        return
    table = Table()
    for heading in ("name", "roles", "state", "expires", "created by", "last used"):
        table.add_column(heading)
    for facts in tokens:
        moments = [facts[key][:16] if facts[key] else NOTHING for key in ("expires_at", "last_used_at")]
        roles = ", ".join(facts["roles"])
        table.add_row(facts["name"], roles, facts["state"], moments[0], facts["created_by"], moments[1])
    out.print(table)


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The token's name.")],
    owner: OwnerOption,
) -> None:
    """End a token now, and every session that was opened with it."""
    runtime = runtime_of(create_app())
    record_action(runtime, "web", "token.revoke", owner, token=name)
    _store(runtime).revoke(name)
    out.print(f"{name} is revoked")


def _store(runtime: Runtime) -> TokenStore:
    return TokenStore(runtime.engine, runtime.clock)


def _facts(runtime: Runtime, token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "roles": sorted(token.roles),
        "state": token.state(runtime.clock.now()),
        "created_at": token.created_at.isoformat(),
        "created_by": token.created_by,
        "expires_at": token.expires_at.isoformat(),
        "last_used_at": token.last_used_at.isoformat() if token.last_used_at else None,
    }
