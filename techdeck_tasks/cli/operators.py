"""What operators' commands have in common: who acts, why, and the record of it."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from techdeck_tasks.runtime import Runtime


def said(text: str) -> str:
    """Return the text of an option that must say something."""
    if not text.strip():
        raise typer.BadParameter("it is empty; it is what the audit log has to explain the action by")
    return text


OwnerOption = Annotated[
    str,
    typer.Option(
        "--owner", help="Who decides.", default_factory=getpass.getuser, show_default="you", callback=said
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.", callback=said)]


def record_action(runtime: Runtime, service: str, operation: str, owner: str, **facts: Any) -> None:
    """Put an operator's action on record, before it is done.

    Raises:
        AuditUnavailableError: it cannot be recorded; the action must not be taken.
    """
    runtime.record_action(service, operation, owner, **facts)
