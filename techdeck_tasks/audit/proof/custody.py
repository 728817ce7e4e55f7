"""Beside the drain: makes checkpoints, and keeps the backup sink up to date."""

from __future__ import annotations

import logging
import threading

from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.sink_export import SinkExporter
from techdeck_tasks.clock import Clock

logger = logging.getLogger(__name__)

POLL_S = 1.0
_REPORT_EVERY_S = 60.0


class Custody:
    """Runs until stopped. Checkpoints do not wait for the sink, and the drain waits for neither.

    Args:
        checkpointer: makes checkpoints.
        exporter: copies to the sink; None where there is none.
        clock: measures how long the sink takes.
        sink_timeout_s: a sink that takes longer for a call is reported; `stop` leaves it behind.
    """

    def __init__(
        self, checkpointer: Checkpointer, exporter: SinkExporter | None, clock: Clock, sink_timeout_s: float
    ) -> None:
        self._checkpointer = checkpointer
        self._exporter = exporter
        self._clock = clock
        self._sink_timeout_s = sink_timeout_s
        self._stopping = threading.Event()
        self._last_made = threading.Event()
        self._busy_since: float | None = None
        self._report_at = 0.0
        self._checkpoints = threading.Thread(target=self._make, name="audit-checkpoints", daemon=True)
        self._copies = threading.Thread(target=self._copy, name="audit-sink", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._checkpoints.start()
        if self._exporter is not None:
            self._copies.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Make a last checkpoint, copy it, and return; each within its time, or not at all."""
        self._stopping.set()
        if self._checkpoints.is_alive():
            self._checkpoints.join(timeout_s)
        self._last_made.set()
        if self._copies.is_alive():
            self._copies.join(self._sink_timeout_s)

    def _make(self) -> None:
        while not self._stopping.wait(POLL_S):
            self._try_to_make(last=False)
            self._watch_sink()
        self._try_to_make(last=True)

    def _try_to_make(self, *, last: bool) -> None:
        try:
            if last:
                self._checkpointer.make()
            else:
                self._checkpointer.make_if_due()
        except Exception as error:  # noqa: BLE001 - the next one covers the same rows
            logger.error("no audit checkpoint could be made: %s", error)  # noqa: TRY400 - told every second

    def _copy(self) -> None:
        assert self._exporter is not None
        finished = False
        while not finished:
            finished = self._last_made.wait(POLL_S)
            self._busy_since = self._clock.monotonic()
            try:
                self._exporter.catch_up()
            except Exception as error:  # noqa: BLE001 - any file system, any error; the rows wait in PostgreSQL
                self._report("the audit sink takes nothing: %s", error)
            self._busy_since = None

    def _watch_sink(self) -> None:
        since = self._busy_since
        if since is not None and self._clock.monotonic() - since > self._sink_timeout_s:
            self._report(
                "the audit sink has not answered for %.0f s; rows wait in PostgreSQL. Mend it, or restart "
                "this worker",
                self._clock.monotonic() - since,
            )

    def _report(self, message: str, *arguments: object) -> None:
        if self._clock.monotonic() >= self._report_at:
            self._report_at = self._clock.monotonic() + _REPORT_EVERY_S
            logger.error(message, *arguments)
