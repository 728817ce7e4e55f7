"""The options that say which audit entries are wanted, the same for every command that searches."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from techdeck_tasks.audit.reading.search import AuditFilter

_MOMENT = "a date (its midnight in UTC), or a time with its zone, such as 2026-01-31T08:00:00Z"
_OPTIONS: dict[str, tuple[str, str]] = {
    "since": ("--since", f"From this moment on: {_MOMENT}."),
    "until": ("--until", "Before this moment, exclusive."),
    "event_type": ("--type", "Only events of this type, such as error_handling or audit_read."),
    "severity": ("--severity", "low, medium, high or critical."),
    "error_code": ("--code", "Only this error code."),
    "error_id": ("--error-id", "Only this error."),
    "service": ("--service", "Only this service."),
    "operation": ("--operation", "Only this operation."),
    "outcome": ("--outcome", "Only what ended so: retry, parked, fallback, failed, responded."),
    "task_name": ("--task", "Only the task of this name."),
    "task_id": ("--task-id", "Only the task with this id."),
    "pipeline_id": ("--run", "Only this run."),
    "stage": ("--stage", "Only this stage."),
    "user": ("--user", "Only what this user did."),
    "subject": ("--subject", "Only what is about this person."),
}
_HIPAA = typer.Option("--hipaa/--no-hipaa", help="Only HIPAA-related entries, or only the others.")


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the options of a search in place of its first argument `wanted`."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(
            name, keyword, default=None, annotation=Annotated[str | None, typer.Option(flag, help=text)]
        )
        for name, (flag, text) in _OPTIONS.items()
    ]
    options.append(
        inspect.Parameter("hipaa_related", keyword, default=None, annotation=Annotated[bool | None, _HIPAA])
    )
    names = [option.name for option in options]

    @wraps(command)
    def run(**given: Any) -> None:
        filters = {name: given.pop(name) for name in names}
        command(AuditFilter.from_mapping(filters), **given)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*options, *(parameter.replace(kind=keyword) for parameter in own)]
    # typer reads both.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
