"""The audit worker's loop: stream to rows, in batches, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy.exc import DataError, IntegrityError

from techdeck_tasks.audit.writing.stream import AuditStream, Delivery, unpack
from techdeck_tasks.audit.writing.writer import AuditWriter, Candidate
from techdeck_tasks.errors import ServiceUnavailableError, ValidationError
from techdeck_tasks.storage.redis_client import REDIS_FAILURES

logger = logging.getLogger(__name__)

CLAIM_IDLE_MS = 30_000
CLAIM_EVERY = 16
"""So many reads apart a busy worker looks for what dead ones left; an idle one looks each time."""

BLOCK_MS = 500
_WAITED_FOR: tuple[type[Exception], ...] = (*REDIS_FAILURES, ServiceUnavailableError)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class _Batch:
    """Deliveries as they were read: those that hold an event, and those that hold none, with the reason."""

    opened: Sequence[tuple[Delivery, Candidate]] = ()
    unreadable: Sequence[tuple[Delivery, str]] = ()

    @classmethod
    def of(cls, deliveries: Sequence[Delivery]) -> Self:
        opened, unreadable = [], []
        for delivery in deliveries:
            try:
                opened.append((delivery, Candidate.of(unpack(delivery.payload))))
            except ValidationError as error:
                unreadable.append((delivery, error.message))
        return cls(opened, unreadable)

    def __len__(self) -> int:
        return len(self.opened) + len(self.unreadable)


class Drain:
    """Moves entries from the stream into the log until told to stop.

    An entry is acknowledged only after its row is committed. Where PostgreSQL or Redis is away the loop waits
    and tries again; what it had read stays pending in the stream and is read again.

    One thread does all of it: a second one that reads ahead halves the speed, as both need the interpreter
    for most of their time. Instead, it reads and opens the next batch while PostgreSQL takes in the one in
    hand. More workers make it faster still.

    Args:
        stream: where entries come from.
        writer: where they go.
        batch_size: entries a transaction, at most.
        claim_idle_ms: an entry unacknowledged for so long is taken over from another worker.
    """

    def __init__(
        self, stream: AuditStream, writer: AuditWriter, batch_size: int, claim_idle_ms: int = CLAIM_IDLE_MS
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._batch_size = batch_size
        self._claim_idle_ms = claim_idle_ms
        self._reads = 0
        self._ahead = _Batch()
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-drain", daemon=True)
        self.written = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish what is ready in the stream, for `timeout_s` at most; then the batch in hand, and return.

        Where that batch takes as long again, it is left: it stays in the stream, and its repetition is
        recognised.
        """
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
            self._leaving.set()
            self._thread.join(timeout_s)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._leaving.is_set():
            try:
                self._stream.ensure_group()
                self._take_over()
                wait_s = FIRST_WAIT_S
                self._move()
            except _WAITED_FOR as error:
                # What was committed and not acknowledged is recognised by its id the next time.
                logger.warning("audit drain waits %.1f s: %s", wait_s, error)
                if self._stopping.wait(wait_s):
                    return
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            except Exception:
                logger.exception("audit drain failed; it goes on in %.1f s", LONGEST_WAIT_S)
                if self._stopping.wait(LONGEST_WAIT_S):
                    return
            else:
                return

    def _take_over(self) -> None:
        self._ahead = _Batch()  # it is unacknowledged, too
        while not self._leaving.is_set() and (found := self._stream.read_unacknowledged(self._batch_size)):
            self._write(_Batch.of(found))

    def _move(self) -> None:
        """Write batch after batch until told to stop, and nothing is left or the time is over."""
        while not self._leaving.is_set():
            batch = self._next_batch()
            if not batch and self._stopping.is_set():
                return
            # Behind a batch that is not full there is hardly another one yet.
            more = len(batch) == self._batch_size and not self._stopping.is_set()
            self._write(batch, self._read_ahead if more else None)

    def _next_batch(self) -> _Batch:
        batch, self._ahead = self._ahead, _Batch()
        return batch or self._read(None if self._stopping.is_set() else BLOCK_MS)

    def _read_ahead(self) -> None:
        self._ahead = self._read(None)

    def _read(self, block_ms: int | None) -> _Batch:
        self._reads += 1
        if self._reads % CLAIM_EVERY == 0 and (claimed := self._claim()):
            return _Batch.of(claimed)
        return _Batch.of(self._stream.read(self._batch_size, block_ms) or self._claim())

    def _claim(self) -> list[Delivery]:
        return self._stream.claim(self._batch_size, self._claim_idle_ms)

    def _write(self, batch: _Batch, meanwhile: Callable[[], None] | None = None) -> None:
        for delivery, reason in batch.unreadable:
            self._set_aside(delivery, reason)
        try:
            self._write_opened(batch.opened, meanwhile)
        except (DataError, IntegrityError):
            # PostgreSQL is there and refuses something in the batch: alone, each shows if it is to blame.
            for pair in batch.opened:
                try:
                    self._write_opened([pair])
                except (DataError, IntegrityError) as error:
                    self._set_aside(pair[0], f"PostgreSQL refuses it: {type(error.orig).__name__}")

    def _write_opened(
        self, opened: Sequence[tuple[Delivery, Candidate]], meanwhile: Callable[[], None] | None = None
    ) -> None:
        result = self._writer.write_candidates((candidate for _, candidate in opened), meanwhile)
        self.written += result.written
        reasons = {id(event): reason for event, reason in result.refused}
        done = []
        for delivery, candidate in opened:
            if id(candidate.event) in reasons:
                self._set_aside(delivery, reasons[id(candidate.event)])
            else:
                done.append(delivery)
        self._stream.acknowledge(done)

    def _set_aside(self, delivery: Delivery, reason: str) -> None:
        logger.error("audit entry %s quarantined: %s", delivery.entry_id.decode(), reason)
        self._stream.quarantine(delivery, reason)
