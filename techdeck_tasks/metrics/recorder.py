"""Counts events in the process and tells the store: successes each second, errors at once."""

from __future__ import annotations

import logging
import os
import threading
import uuid
import weakref
from collections import Counter, deque
from collections.abc import Callable

from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.events import ErrorHandled, Event
from techdeck_tasks.metrics.buckets import minute_of
from techdeck_tasks.metrics.series import DROPPED, Series, increments_of
from techdeck_tasks.metrics.store import Batch, MetricsStore

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
MAX_PENDING = 10_000
"""Series that wait in a process while Redis is away; what comes beyond is dropped, and that is counted."""


class MetricsRecorder:
    """A listener that turns events into counts. Never raises, never waits for a Redis that is away.

    A success costs a few increments in the process: a thread tells the store a second later, and ends when
    nothing is left to tell. An error is told before `on_event` returns, as its audit row is: a process killed
    right after it has not lost it. While the store is away the counts wait here, and the thread asks each
    second; each is counted exactly once, also where an answer was lost. A killed process loses at most a
    second's successes; a forked child does not tell its parent's.

    Args:
        store: gives the store when there is first something to tell: making its client may connect.
        flush_s: seconds between two batches.
    """

    def __init__(self, store: Callable[[], MetricsStore], *, flush_s: float = FLUSH_S) -> None:
        self._store = store
        self._flush_s = flush_s
        self._start_empty()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _start_child_empty(this()))

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._pending: dict[int, Counter[Series]] = {}
        self._pending_series = 0
        self._dropped = 0
        self._unsent: deque[Batch] = deque()
        self._producer = uuid.uuid4().hex
        self._sequence = 0
        self._teller: threading.Thread | None = None
        self._away = False

    def on_event(self, event: Event) -> None:
        """Count `event`, in the minute in which it happened."""
        minute = minute_of(event.occurred_at)
        with self._lock:
            counts = self._pending.get(minute)
            if counts is None:
                counts = self._pending[minute] = Counter()
            for series, count in increments_of(event):
                if series in counts:
                    counts[series] += count
                elif self._pending_series < MAX_PENDING:
                    counts[series] = count
                    self._pending_series += 1
                else:
                    self._dropped += count
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell_later, name="metrics", daemon=True)
                self._teller.start()
        if isinstance(event, ErrorHandled) and not self._away:
            self._tell(despite_outage=False)

    def flush(self) -> bool:
        """Tell everything that waits; False where the store is away. One round trip for each minute."""
        return self._tell(despite_outage=True)

    def _tell(self, *, despite_outage: bool) -> bool:
        # One at a time: batches keep their order, and who waited finds its counts told.
        with self._telling:
            if self._away and not despite_outage:
                return False
            try:
                while self._next_batches():
                    while self._unsent:
                        self._store().add(self._unsent[0])
                        self._unsent.popleft()
            except ServiceUnavailableError as failure:
                if not self._away:
                    logger.warning("metrics wait in this process: %s", failure)
                self._away = True
                return False
            self._away = False
            return True

    def _next_batches(self) -> bool:
        """Move what is pending to what is sent next, where all of that was sent."""
        if self._unsent:
            return True
        with self._lock:
            pending, self._pending, self._pending_series = self._pending, {}, 0
            dropped, self._dropped = self._dropped, 0
        if dropped:
            pending[max(pending)][DROPPED] += dropped
            logger.warning("%d counts were dropped while the metrics' store was away", dropped)
        for minute, counts in pending.items():
            if counts:
                self._sequence += 1
                self._unsent.append(Batch(self._producer, self._sequence, minute, counts))
        return bool(self._unsent)

    def _tell_later(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._flush_s)
            try:
                self.flush()
            except Exception:
                # Without its thread a process would tell nothing any more.
                logger.exception("metrics could not be told")
            with self._lock:
                if not self._pending and not self._unsent:
                    self._teller = None
                    return


def _start_child_empty(recorder: MetricsRecorder | None) -> None:
    if recorder is not None:
        recorder._start_empty()  # noqa: SLF001 - its own module; the hook must not keep it alive
