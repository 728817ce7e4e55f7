"""``techdeck cancel``, ``resume``, ``reconcile`` and ``logs``: what operators do with runs."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated

import typer

from techdeck_tasks.audit.reading.search import AuditFilter
from techdeck_tasks.cli.console import out, print_json
from techdeck_tasks.cli.operators import OwnerOption, ReasonOption
from techdeck_tasks.cli.options import JsonOption
from techdeck_tasks.cli.tables import show_audit
from techdeck_tasks.runtime import create_app, runtime_of

RunArgument = Annotated[str, typer.Argument(help="The run's id.")]


def cancel(
    run_id: RunArgument, reason: ReasonOption, owner: OwnerOption, json_output: JsonOption = False
) -> None:
    """Call a run off. What waits does not start; what runs stops at its next checkpoint."""
    state = runtime_of(create_app()).runs.cancel(run_id, owner=owner, reason=reason)
    if json_output:
        print_json({"run_id": run_id, "state": state})
    else:
        out.print(f"run {run_id} is {state}")


def resume(
    run_id: RunArgument, reason: ReasonOption, owner: OwnerOption, json_output: JsonOption = False
) -> None:
    """Let a failed or cancelled run go on from where it ended; what succeeded is not done again."""
    stages = runtime_of(create_app()).runs.resume(run_id, owner=owner, reason=reason)
    if json_output:
        print_json({"run_id": run_id, "stages": stages})
    else:
        out.print(f"run {run_id} goes on with {', '.join(stages)}")


def reconcile(json_output: JsonOption = False) -> None:
    """Send again, now, what lost messages and dead workers left behind. Beat does so every 15 seconds."""
    found = runtime_of(create_app()).runs.reconcile()
    if json_output:
        print_json(asdict(found))
    else:
        out.print(
            f"{found.resent} messages sent again, {found.lost} lost attempts followed by another, "
            f"{found.failed} stages failed"
        )


def logs(
    run_id: RunArgument,
    limit: Annotated[int, typer.Option(help="At most this many, the newest; 1 to 10000.")] = 200,
    json_output: JsonOption = False,
) -> None:
    """Show what the audit log has of a run, oldest first; decrypted where the reader's key is at hand."""
    runtime = runtime_of(create_app())
    runtime.pipeline.store.get_run(run_id)
    entries = runtime.audit_reader(getpass.getuser()).search(AuditFilter(pipeline_id=run_id), limit=limit)
    entries.reverse()
    if json_output:
        print_json([entry.to_dict() for entry in entries])
    elif entries:
        show_audit(out, entries)
    else:
        out.print("the audit log has nothing of this run: nothing went wrong, and nobody intervened")
