"""Sending a kept task again."""

from __future__ import annotations

import uuid

from celery import Celery
from celery.canvas import Signature

from techdeck_tasks.errors import CircuitBreakerError
from techdeck_tasks.resilience.breaker import BreakerRegistry, State
from techdeck_tasks.tasks.broker import outages_told
from techdeck_tasks.tasks.letters import LetterKind, LetterStore


def replay(app: Celery, store: LetterStore, letter_id: str, breakers: BreakerRegistry | None) -> str:
    """Send the task of a letter again and remove the letter; return the task's id.

    A dead letter becomes a new task, which the rest of its chain follows; an intervention goes on as the task
    it was, whose caller still waits.

    Args:
        app: knows the task, or at least the broker.
        store: has the letter.
        letter_id: which one.
        breakers: asked first: a replay into an outage would only fail again. None: nobody is asked.

    Raises:
        CircuitBreakerError: the task's breaker is open; the letter stays.
        ServiceUnavailableError: the broker is away; the letter stays.
        ValidationError: there is no such letter.
    """
    letter = store.get(letter_id)
    if breakers is not None and letter.breaker is not None:
        _ask(breakers, letter.breaker)
    # Taken first: of two operators who replay it at once, one sends it.
    letter = store.take(letter.letter_id)
    task = Signature.from_dict(dict(letter.signature), app=app)
    waits = letter.kind is LetterKind.INTERVENTION
    task_id = letter.task_id if waits else str(uuid.uuid4())
    task.set(task_id=task_id, retries=0, countdown=None, eta=None, expires=None, headers=None)
    if not waits:
        # Its group and chord were told that it failed; its own successors still have to run.
        task.set(root_id=None, parent_id=None, group_id=None, chord=None)
    try:
        with outages_told(letter.task_name):
            task.apply_async()
    except BaseException:
        store.add(letter)
        raise
    return task_id


def _ask(breakers: BreakerRegistry, name: str) -> None:
    status = breakers.get_status(name)
    if status["state"] in (State.OPEN, State.FORCED_OPEN):
        raise CircuitBreakerError(
            f"breaker {name} is {status['state']}: the replay would fail again; wait, or use --force",
            service_name=name,
            failure_count=status["failure_count"],
            threshold=status["threshold"],
            retry_after=status.get("retry_after_seconds") or None,
        )
