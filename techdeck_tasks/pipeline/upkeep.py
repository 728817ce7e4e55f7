"""The pipelines' scheduled tasks. Plain Celery tasks: what they fail at, the next slot does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from celery import Task
from redis import Redis

from techdeck_tasks.clock import Clock
from techdeck_tasks.tasks.turns import once_a_slot

if TYPE_CHECKING:
    from celery import Celery

RECONCILE = "techdeck.pipeline.reconcile"
START_DUE = "techdeck.pipeline.start_due"
COLLECT = "techdeck.pipeline.collect"

RECONCILE_S = 15
START_DUE_S = 15
COLLECT_S = 3600

_PERIODS_S = {RECONCILE: RECONCILE_S, START_DUE: START_DUE_S, COLLECT: COLLECT_S}


def register(
    app: Celery,
    *,
    redis: Callable[[], Redis],
    clock: Clock,
    reconcile: Callable[[], object],
    start_due: Callable[[], object],
    collect: Callable[[], object],
) -> None:
    """Give `app` the pipelines' scheduled tasks. Two schedulers run each once a slot.

    Args:
        app: the pipeline worker's application.
        redis: where slots are taken.
        clock: the time.
        reconcile: sends again what was lost.
        start_due: starts what a schedule wants.
        collect: removes old artifacts and uploads.
    """
    for name, body in ((RECONCILE, reconcile), (START_DUE, start_due), (COLLECT, collect)):
        app.task(
            once_a_slot(name, timedelta(seconds=_PERIODS_S[name]), body, redis, clock),
            name=name,
            base=Task,
            shared=False,
            ignore_result=True,
        )
