"""A task as the worker's main process sees it: where killed children are noticed and monitors are answered."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, cast

from billiard.einfo import ExceptionWithTraceback
from celery.worker.request import Request

from techdeck_tasks.errors import WorkerLostError
from techdeck_tasks.events import Outcome
from techdeck_tasks.redaction import redact
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.messaging import MASK, mask_event

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _executor() -> ThreadPoolExecutor:
    # What follows a kill talks to Redis and PostgreSQL; the main process must go on reading messages.
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="lost-children")


class TechDeckRequest(Request):  # type: ignore[misc]  # celery ships no types
    """Audits what no hook in the child can: hard time limits, SIGKILL, lost workers. Once an attempt."""

    _retried_after_loss = False
    _succeeded_before_loss = False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Let Celery retry or fail the task, then audit what its child could not."""
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        # return_ok: the child lived to tell, and its own hooks have audited it.
        if not return_ok and not self._succeeded_before_loss:
            error = exc_info.exception
            if isinstance(error, ExceptionWithTraceback):
                error = error.exc
            _executor().submit(self._audit_loss, error)

    def _retry_worker_lost(self, exc: Any, exc_info: Any) -> bool:
        self._retried_after_loss = bool(super()._retry_worker_lost(exc, exc_info))
        return self._retried_after_loss

    def _success_was_stored(self) -> Any:
        stored = super()._success_was_stored()
        self._succeeded_before_loss = bool(stored)
        return stored

    def _audit_loss(self, cause: BaseException) -> None:
        try:
            task = cast("TechDeckTask", self.task)
            args, kwargs = tuple(self.args), self.kwargs
            error = WorkerLostError(
                f"the process that ran {self.name} was lost ({type(cause).__name__}): "
                "killed, out of memory, or over its hard time limit",
                operation=self.name,
                original_error=cause,
            )
            outcome = Outcome.RETRY if self._retried_after_loss else Outcome.FAILED
            task.services.handler.handle(error, task.full_context(args, kwargs, self._context), outcome=outcome)
            if self._retried_after_loss:
                task.on_retry_scheduled(error, self._context.retries, task.default_retry_delay, args, kwargs)
            else:
                task.on_given_up(error, args, kwargs)
        except Exception:
            logger.exception("the loss of %s[%s] could not be audited", self.name, self.id)

    # -- what monitors see --------------------------------------------------------------------------

    @property
    def argsrepr(self) -> str:
        """Masked, whatever the message's headers say."""
        return MASK

    @property
    def kwargsrepr(self) -> str:
        """Masked, whatever the message's headers say."""
        return MASK

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what `inspect` reports."""
        return {**super().info(safe=True), "args": MASK, "kwargs": MASK}

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's parameter
        """Send a monitoring event."""
        super().send_event(type, **mask_event(fields, redact))
