"""What operators' commands have in common: who acts, why, and the record of it."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from techdeck_tasks.runtime import Runtime

OwnerOption = Annotated[str, typer.Option("--owner", help="Who decides.", default_factory=getpass.getuser)]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")]


def record_action(runtime: Runtime, service: str, operation: str, owner: str, **facts: Any) -> None:
    """Put an operator's action on record, before it is done.

    Raises:
        AuditUnavailableError: it cannot be recorded; the action must not be taken.
    """
    runtime.record_action(service, operation, owner, **facts)
