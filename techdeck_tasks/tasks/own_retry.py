"""A retry that a task's body asks for itself, by `retry()` or Celery's `autoretry_for`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from techdeck_tasks.errors import is_control_flow
from techdeck_tasks.events import Outcome

if TYPE_CHECKING:
    from techdeck_tasks.tasks.base import TechDeckTask

SPENT: Final = "td_retries_spent"
"""Set on a request whose body asked for a retry that its own limit does not allow."""


def note_own_retry(task: TechDeckTask, error: object, max_retries: int | None) -> None:
    """Audit the error that a retry is asked for, or note that there is none to follow.

    Args:
        task: the running task.
        error: given as ``exc``; None: the one that is being handled, in a worker. Eager, that may be the
            caller's.
        max_retries: as given to `retry()`; None: the task's own.

    Raises:
        AuditUnavailableError: it could be recorded nowhere and the fail policy is closed.
    """
    request = task.request
    limit = task.max_retries if max_retries is None else max_retries
    if limit is not None and request.retries >= limit:
        setattr(request, SPENT, True)
        return
    cause: Any = error if error is not None or request.is_eager else sys.exception()
    if not issubclass(type(cause), Exception) or is_control_flow(cause):
        # Nothing failed: the task asks whether something has come, and asks again later.
        return
    context = task.full_context(tuple(request.args or ()), request.kwargs or {}, request)
    task.services.handler.handle(cause, context, outcome=Outcome.RETRY)
