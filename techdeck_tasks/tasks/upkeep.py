"""The audit worker's scheduled tasks. Plain Celery tasks: an error of the audit must not audit itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from celery import Task

from techdeck_tasks.audit.verify import VerifyReport

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

UPKEEP = "techdeck.audit.upkeep"
VERIFY = "techdeck.audit.verify"
BREAKERS = "techdeck.audit.breakers"


def register(
    app: Celery,
    *,
    upkeep: Callable[[], None],
    verify: Callable[[], VerifyReport],
    record_breakers: Callable[[], int],
) -> None:
    """Give `app` the audit log's scheduled tasks. Each may run twice for one slot without harm.

    Args:
        app: the audit worker's application.
        upkeep: makes the coming partitions and sends what waits in the spool.
        verify: recomputes the chains.
        record_breakers: puts the breakers' transitions on record.
    """

    def run_upkeep() -> None:
        upkeep()

    def run_verify() -> dict[str, int]:
        report = verify()
        for finding in report.findings:
            logger.critical("audit verify: %s, %s: %s", finding.verdict, finding.chain, finding.detail)
        return {"rows": report.rows, "findings": len(report.findings)}

    def run_breakers() -> int:
        return record_breakers()

    for name, body in ((UPKEEP, run_upkeep), (VERIFY, run_verify), (BREAKERS, run_breakers)):
        app.task(body, name=name, base=Task, shared=False, ignore_result=True)
