"""A running attempt's hold on its stage: renewed from a thread, looked at between batches."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.pipeline.runs.hold import Hold
from techdeck_tasks.pipeline.runs.store import PipelineStore

logger = logging.getLogger(__name__)

_RENEWALS_PER_LEASE = 4
CHECK_INTERVAL_S = 1.0


class StageStopped(Exception):  # noqa: N818 - control flow, no error
    """Ends an attempt that is no longer wanted: its run is cancelled, or the stage has gone to another."""


class Claim:
    """Keeps one attempt's lease for as long as the block runs, and at most for `limit_s` seconds.

    The process that runs the stage renews its lease, not the worker's main process: where a child outlives
    the main process (it dies with it only on Linux) it goes on until its stage ends, and must not be taken
    for dead while it does. Nobody enforces its time limit then, hence `limit_s`.
    """

    def __init__(
        self,
        store: PipelineStore,
        clock: Clock,
        *,
        run_id: str,
        stage: str,
        attempt: int,
        task_id: str,
        limit_s: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._who = (run_id, stage, attempt, task_id)
        self._ends_at = clock.monotonic() + limit_s
        self._asked_at = clock.monotonic()
        self._hold = Hold.HELD
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{stage}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Go on, or end the attempt. Costs a round trip to PostgreSQL at most once a second.

        Raises:
            StageStopped: the run is being cancelled, or the stage has gone to another attempt.
        """
        if self._hold is Hold.HELD and self._clock.monotonic() - self._asked_at >= CHECK_INTERVAL_S:
            self._renew()
        if self._hold is not Hold.HELD:
            raise StageStopped

    def _keep(self) -> None:
        interval_s = self._store.lease.total_seconds() / _RENEWALS_PER_LEASE
        while not self._over.wait(interval_s) and self._clock.monotonic() < self._ends_at:
            if self._hold is Hold.LOST:
                return
            self._renew()

    def _renew(self) -> None:
        self._asked_at = self._clock.monotonic()
        try:
            self._hold = self._store.renew_stage(*self._who)
        except TechDeckError as trouble:
            # Whether the stage was lost meanwhile is decided when its output is delivered.
            run_id, stage, *_ = self._who
            logger.warning("the lease of stage %s of run %s was not renewed: %s", stage, run_id, trouble)
