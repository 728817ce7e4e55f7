"""What people do through the API and the dashboard alike. Each action is on record before it is done."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

from techdeck_tasks.audit.proof.verify_run import Verification
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.definition import PipelineDefinition, parse_definition
from techdeck_tasks.pipeline.runs.operations import Reconciled
from techdeck_tasks.pipeline.schedules import Schedule
from techdeck_tasks.pipeline.upload.record import SCHEME
from techdeck_tasks.resilience.breaker import CircuitBreaker, State
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.tasks.letters import LetterKind, LetterStore
from techdeck_tasks.tasks.replay import replay
from techdeck_tasks.web.auth import Caller


class BreakerAction(StrEnum):
    """What an operator may do with a breaker."""

    RESET = "reset"
    OPEN = "open"
    DISABLE = "disable"
    SHADOW = "shadow"
    CLEAR = "clear"


_FORCED = {
    BreakerAction.OPEN: State.FORCED_OPEN,
    BreakerAction.DISABLE: State.DISABLED,
    BreakerAction.SHADOW: State.SHADOW,
}


def start_pipeline(
    runtime: Runtime, caller: Caller, definition: Mapping[str, Any], idempotency_key: str | None
) -> dict[str, Any]:
    """Store a run and send its first stages; return its id and state.

    With a key that has a run already, nothing new begins and that run is returned.

    Raises:
        ValidationError: the definition is not valid, or the key belongs to another one.
        UnknownUploadError: the source is an upload, and not the caller's.
    """
    parsed = _parsed(runtime, caller, definition)
    run_id = str(uuid.uuid4())
    runtime.record_action(
        "pipeline", "pipeline.start", caller.name, pipeline=parsed.name, run_id=run_id, key=idempotency_key
    )
    return runtime.pipeline.start(run_id, parsed, idempotency_key)


def _parsed(runtime: Runtime, caller: Caller, definition: Mapping[str, Any]) -> PipelineDefinition:
    parsed = parse_definition(definition)
    runtime.pipeline.check(parsed)
    if parsed.source.url.startswith(f"{SCHEME}://"):
        # A worker opens every upload; whose it is, only the caller's name can tell.
        runtime.uploads.require_owner(parsed.source.url, caller.name)
    return parsed


def reconcile_runs(runtime: Runtime, caller: Caller, *, reason: str) -> Reconciled:
    """Send again, now, what lost messages and dead workers left behind."""
    runtime.record_action("pipeline", "run.reconcile", caller.name, reason=reason)
    return runtime.runs.reconcile()


def add_schedule(runtime: Runtime, caller: Caller, definition: Mapping[str, Any], *, reason: str) -> Schedule:
    """Start a pipeline at each slot of its schedule from now on.

    Raises:
        ValidationError: the definition is not valid, or has no schedule.
        UnknownUploadError: the source is an upload, and not the caller's.
    """
    parsed = _parsed(runtime, caller, definition)
    facts = {"schedule": parsed.name, "cron": parsed.schedule, "reason": reason}
    runtime.record_action("pipeline", "schedule.add", caller.name, **facts)
    return runtime.schedules.add(parsed)


def remove_schedule(runtime: Runtime, caller: Caller, name: str, *, reason: str) -> None:
    """End a schedule; runs it has started go on."""
    runtime.record_action("pipeline", "schedule.remove", caller.name, schedule=name, reason=reason)
    runtime.schedules.remove(name)


def breaker_status(runtime: Runtime, name: str) -> dict[str, Any]:
    """Return a breaker's status and its last transitions, the newest first."""
    breaker = _breaker(runtime, name)
    changes = [
        {
            "at": change.occurred_at.isoformat(),
            "from": change.old,
            "to": change.new,
            "reason": change.reason,
            "owner": change.owner or None,
        }
        for owner, _, change in runtime.breakers.transitions({})
        if owner == name
    ]
    return {**breaker.get_status(), "transitions": changes[::-1]}


def change_breaker(
    runtime: Runtime,
    caller: Caller,
    name: str,
    action: BreakerAction,
    *,
    reason: str,
    minutes: float | None = None,
) -> None:
    """Act on a breaker, everywhere.

    Raises:
        ValidationError: the name is malformed.
        ServiceUnavailableError: Redis is away; nothing was changed.
    """
    breaker = _breaker(runtime, name)
    facts = {"breaker": name, "reason": reason, "minutes": minutes}
    runtime.record_action("breaker", f"breaker.{action}", caller.name, **facts)
    if action is BreakerAction.RESET:
        breaker.manual_reset(owner=caller.name, reason=reason)
    elif action is BreakerAction.CLEAR:
        breaker.clear_override(owner=caller.name, reason=reason)
    else:
        ttl = timedelta(minutes=minutes) if minutes else None
        breaker.force(_FORCED[action], owner=caller.name, reason=reason, ttl=ttl)


def letters_of(runtime: Runtime, kind: LetterKind) -> LetterStore:
    """Return the store of one kind of letters."""
    return runtime.dead_letters if kind is LetterKind.DEAD else runtime.interventions


def send_letter(
    runtime: Runtime, caller: Caller, kind: LetterKind, letter_id: str, *, reason: str, force: bool
) -> str:
    """Send a kept task again; return the task's id. `force`: even while its breaker is open."""
    assert runtime.app is not None
    store = letters_of(runtime, kind)
    letter = store.get(letter_id)
    verb = "replay" if kind is LetterKind.DEAD else "resolve"
    facts = {"letter_id": letter.letter_id, "task_name": letter.task_name, "reason": reason}
    runtime.record_action("letters", f"{kind}.{verb}", caller.name, **facts)
    return replay(runtime.app, store, letter.letter_id, None if force else runtime.breakers)


def drop_letter(runtime: Runtime, caller: Caller, kind: LetterKind, letter_id: str, *, reason: str) -> None:
    """Forget a kept task."""
    store = letters_of(runtime, kind)
    letter = store.get(letter_id)
    facts = {"letter_id": letter.letter_id, "task_name": letter.task_name, "reason": reason}
    runtime.record_action("letters", f"{kind}.drop", caller.name, **facts)
    store.take(letter.letter_id)


def replay_message(runtime: Runtime, caller: Caller, message_id: str, *, reason: str) -> str:
    """Send a message that no worker could read to its queue again; return the queue."""
    assert runtime.app is not None
    found = runtime.quarantine.get(message_id)
    runtime.record_action(
        "quarantine", "quarantine.replay", caller.name, quarantined=found.summary(), reason=reason
    )
    runtime.quarantine.replay(runtime.app, found.message_id)
    return found.queue


def drop_message(runtime: Runtime, caller: Caller, message_id: str, *, reason: str) -> None:
    """Forget a message that no worker could read."""
    found = runtime.quarantine.get(message_id)
    runtime.record_action(
        "quarantine", "quarantine.drop", caller.name, quarantined=found.summary(), reason=reason
    )
    runtime.quarantine.take(found.message_id)


def verify_log(runtime: Runtime, caller: Caller) -> dict[str, Any]:
    """Recompute the audit log's chains; the result is kept, and a finding becomes an incident."""
    runtime.record_action("audit", "audit.verify", caller.name)
    return _verdict(runtime.inspect_audit())


def last_verdict(runtime: Runtime) -> dict[str, Any] | None:
    """Return when the log was last verified, by whom ever, its rows, and whether it was untouched."""
    last = runtime.last_verification()
    return None if last is None else {**_verdict(last), "verified_at": last.finished_at}


def _verdict(verification: Verification) -> dict[str, Any]:
    return {
        "ok": verification.ok,
        "rows": verification.rows,
        "writers": verification.writers,
        "findings": list(verification.findings),
        "verified_at": verification.finished_at.isoformat(),
    }


def _breaker(runtime: Runtime, name: str) -> CircuitBreaker:
    try:
        return runtime.breakers.get(name)
    except ValueError:
        raise ValidationError(
            "a breaker's name has 1 to 200 printable characters and no braces", field="name"
        ) from None
