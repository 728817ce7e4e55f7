"""A task as the worker's main process sees it: where killed children are noticed and monitors are answered."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import signals
from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from techdeck_tasks.errors import TechDeckError, as_techdeck_error, classify
from techdeck_tasks.errors import WorkerLostError as LostError
from techdeck_tasks.events import Outcome
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.broker import OUTAGE
from techdeck_tasks.tasks.disclosure import disclosable
from techdeck_tasks.tasks.messaging import MASK, mask_event

logger = logging.getLogger(__name__)

_STEERING = (Retry, Ignore, Reject)
_KILLING = (WorkerLostError, TimeLimitExceeded, Terminated, SystemExit, KeyboardInterrupt, MemoryError)
"""What Celery reports where the child could not tell itself, or where it would not live on."""

_RETRIED = (WorkerLostError, SystemExit, KeyboardInterrupt, MemoryError)
"""Of these a task is tried again. A hard limit is final: Celery has failed the task when it tells of it."""


@lru_cache(maxsize=1)
def _executor() -> ThreadPoolExecutor:
    # What follows a kill talks to Redis and PostgreSQL; the main process must go on reading messages.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="lost-children")


class TechDeckRequest(Request):  # type: ignore[misc]  # celery ships no types
    """Retries and audits what no hook in the child can: time limits, signals, lost memory. Once an attempt."""

    _audited = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Whatever the message's headers say: these go into logs, events and the answers to `inspect`.
        self._argsrepr = self._kwargsrepr = MASK

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Let Celery retry or fail the task, then audit what its child could not."""
        error = _bare(exc_info.exception)
        if return_ok or isinstance(error, _STEERING) or self._already_cancelled:
            # The child lived to tell, and its own hooks have audited it; or the message goes to another worker.
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            return
        if isinstance(error, MemoryError):
            # Celery would end the whole worker, and with late acknowledgement the next one, too.
            exc_info = self._worker_lost_info(error)
        elif isinstance(error, Exception) and not isinstance(error, _KILLING):
            exc_info = _disclosed(error, exc_info)
        lost = self._told(error)
        delay_s = self._try_again(error, lost, exc_info)
        if delay_s is None:
            stored = self._success_was_stored() if isinstance(error, _RETRIED) else None
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            if stored:
                return
        if not self._audited:
            self._audited = True
            _executor().submit(self._audit, lost, delay_s)

    def _told(self, error: BaseException) -> TechDeckError:
        if not isinstance(error, _KILLING):
            return as_techdeck_error(error)
        return LostError(
            f"the process that ran {self.name} ended ({type(error).__name__}): killed, out of memory, over its "
            "hard time limit, or revoked",
            operation=self.name,
            original_error=error,
        )

    def _try_again(self, error: BaseException, lost: TechDeckError, exc_info: Any) -> float | None:
        """Send the next attempt; return its delay in seconds, or None where there is none."""
        task = cast("TechDeckTask", self.task)
        if not isinstance(error, _RETRIED) or self._already_revoked or not task.retry_on_worker_lost:
            return None
        if self._success_was_stored():
            return None
        context = self._context
        facts = task.full_context(tuple(self.args), self.kwargs, context)
        decision = task.decide(lost, classify(lost, facts), facts, context)
        if not decision.retry:
            return None
        task_ready(self)
        try:
            task.successor(context, decision.delay_s).apply_async()
        except OUTAGE as outage:
            logger.warning("the retry of %s[%s] could not be sent (%s)", self.name, self.id, type(outage).__name__)
            self.reject(requeue=True)
            return decision.delay_s
        if self.store_errors:
            task.backend.mark_as_retry(self.id, lost, exc_info.traceback, request=context)
        self.acknowledge()
        self.send_event("task-retried", exception=repr(lost), traceback="")
        signals.task_retry.send(
            sender=task, request=context, reason=Retry(exc=lost, when=decision.delay_s), einfo=exc_info
        )
        return decision.delay_s

    def _retry_worker_lost(self, exc: Any, exc_info: Any) -> bool:  # noqa: ARG002 - Celery's signature
        # Decided before, by the task's policy.
        return False
