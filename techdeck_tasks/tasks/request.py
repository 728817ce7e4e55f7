"""A task as the worker's main process sees it: there killed children are noticed and monitors answered."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, cast

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import current_app, signals
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.errors import TechDeckError, as_techdeck_error, classify
from techdeck_tasks.errors import WorkerLostError as LostError
from techdeck_tasks.events import Outcome
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.broker import OUTAGE
from techdeck_tasks.tasks.disclosure import disclosable
from techdeck_tasks.tasks.messaging import MASK, mask_event

logger = logging.getLogger(__name__)

_STEERING = (Retry, Ignore, Reject)

_LOST = (WorkerLostError, SystemExit, KeyboardInterrupt, MemoryError)
"""Ends of a child that nobody meant."""

_RETRIED = (*_LOST, TimeLimitExceeded)
"""Ends of a child after which its task is tried again, as often as its policy allows."""

_ENDS = (*_RETRIED, Terminated)

REPORT_LIMIT_S = 300
"""Whatever hangs in an application's hook does not keep one of the worker's processes for ever."""


class TechDeckRequest(Request):  # type: ignore[misc]  # celery ships no types
    """Retries and audits what no hook in the child can: hard limits, signals, memory; once an attempt."""

    _audited = False
    _goes_on = False
    _refused = False

    # -- killed children ----------------------------------------------------------------------------

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Retry the task or let Celery fail it, then audit what its child could not."""
        error = _bare(exc_info)
        if return_ok or self._already_cancelled or isinstance(error, _STEERING):
            # The child's own hooks have audited it, or nothing failed: the message goes to another worker.
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            return
        if isinstance(error, MemoryError):
            # Celery would end the whole worker and, with late acknowledgement, the next one, too.
            exc_info = self._worker_lost_info(error)
        elif (shown := disclosable(error)) is not error:
            exc_info = _info_of(shown)
        told = self._told(error)
        delay_s = self._retry(told, exc_info) if isinstance(error, _RETRIED) else None
        if self._refused and self.task.reject_on_worker_lost:
            # Celery would put it back into the queue for ever, though its policy has ended.
            exc_info = _info_of(told)
        if delay_s is None:
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        if not self._audited and not (isinstance(error, _LOST) and self._success_was_stored()):
            self._audited = True
            self._report(told, delay_s)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Fail a task over its hard limit as Celery does, unless it is tried again."""
        if soft or not self._goes_on:
            super().on_timeout(soft, timeout)
        else:
            # Celery tells `on_failure` first: there the next attempt was sent and the message acknowledged.
            logger.error("hard time limit (%ss) exceeded by %s[%s]", timeout, self.name, self.id)

    def _told(self, error: BaseException) -> TechDeckError:
        if not isinstance(error, _ENDS):
            return as_techdeck_error(error)
        return LostError(
            f"the process that ran {self.name} ended ({type(error).__name__}): killed, out of memory, "
            "over its hard time limit, or revoked",
            operation=self.name,
            original_error=error,
        )

    def _retry(self, lost: TechDeckError, exc_info: Any) -> float | None:
        """Send the next attempt; return its delay in seconds, or None where there is none."""
        task, context = cast("TechDeckTask", self.task), self._context
        if (
            not task.retry_on_worker_lost
            or self._already_revoked
            or state.should_terminate
            or self._success_was_stored()
        ):
            return None
        facts = task.full_context(tuple(self.args), self.kwargs, context)
        decision = task.decide(lost, classify(lost, facts), facts, context)
        if not decision.retry:
            self._refused = True
            return None
        state.task_ready(self)
        self._goes_on = True
        try:
            task.successor(context, decision.delay_s).apply_async()
        except OUTAGE as outage:
            logger.warning(
                "retry of %s[%s] not sent (%s); it is requeued", self.name, self.id, type(outage).__name__
            )
            self.reject(requeue=True)
            return decision.delay_s
        if self.store_errors:
            task.backend.mark_as_retry(self.id, lost, exc_info.traceback, request=context)
        self.acknowledge()
        self.send_event("task-retried", exception=repr(lost), traceback="")
        reason = Retry(exc=lost, when=decision.delay_s)
        signals.task_retry.send(sender=task, request=context, reason=reason, einfo=exc_info)
        return decision.delay_s

    def _retry_worker_lost(self, exc: Any, exc_info: Any) -> bool:  # noqa: ARG002 - Celery's signature
        # Celery's counting of lost children: the task's policy has decided already.
        return False

    def _success_was_stored(self) -> Any:
        # The child was lost after its result was stored: the task is done.
        return self._stored_success

    @cached_property
    def _stored_success(self) -> Any:
        return super()._success_was_stored()

    def _report(self, told: TechDeckError, delay_s: float | None) -> None:
        """Audit in a process of the pool: what follows a kill talks to Redis and PostgreSQL.

        Here it would hold up all messages; in a thread of this process, the child that is forked in place of
        the lost one would inherit the locks which that thread holds, and hang.
        """
        told_to = (self._type, dict(self._request_dict), told, delay_s)
        pool = cast("TechDeckTask", self.task).worker_pool
        sent = pool and pool.apply_async(
            report_loss,
            told_to,
            callback=_reported,
            error_callback=self._not_reported,
            timeout=REPORT_LIMIT_S,
        )
        if sent is None:
            # The pool is being closed, and nothing else waits for this process.
            report_loss(*told_to)

    def _not_reported(self, exc_info: Any) -> None:
        trouble = type(_bare(exc_info)).__name__
        logger.critical("what follows the loss of %s[%s] failed: %s", self.name, self.id, trouble)

    # -- what monitors see --------------------------------------------------------------------------

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 - Celery's signature; never unsafe
        """Return what `inspect` reports: of the arguments what their sender wrote into the headers."""
        return dict(super().info(safe=True))

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's parameter
        """Send a monitoring event."""
        if "result" in fields and not self.task.resultrepr_maxsize:
            fields["result"] = MASK
        super().send_event(type, **mask_event(fields))


def report_loss(task_name: str, request: dict[str, Any], told: TechDeckError, delay_s: float | None) -> None:
    """Audit the end of a child, and tell the task's hooks.

    Args:
        task_name: the task it ran.
        request: the task's request.
        told: what happened.
        delay_s: the seconds until the next attempt; None where there is none.
    """
    task: TechDeckTask = current_app.tasks[task_name]
    context = Context(request)
    args, kwargs = tuple(context.args or ()), context.kwargs or {}
    # For the application's hooks, which read self.request.
    task.request_stack.push(context)
    try:
        outcome = Outcome.FAILED if delay_s is None else Outcome.RETRY
        try:
            task.services.handler.handle(told, task.full_context(args, kwargs, context), outcome=outcome)
        except AuditUnavailableError as unaudited:
            # It has happened; whoever keeps the state of the work must hear of it all the same.
            logger.critical("the loss of %s[%s] is not audited: %s", task_name, context.id, unaudited)
        if delay_s is None:
            task.tell_given_up(told, args, kwargs)
        else:
            task.tell_retry_scheduled(told, context.retries, delay_s, args, kwargs)
    finally:
        task.request_stack.pop()


def _reported(result: Any) -> None:
    """Take note; Celery's pools call it always."""


def _bare(exc_info: Any) -> BaseException:
    error = exc_info.exception
    return cast("BaseException", error.exc if isinstance(error, ExceptionWithTraceback) else error)


def _info_of(error: BaseException) -> Any:
    try:
        raise error  # noqa: TRY301 - to be given a traceback
    except BaseException:  # noqa: BLE001 - the one raised the line before
        return ExceptionInfo()
