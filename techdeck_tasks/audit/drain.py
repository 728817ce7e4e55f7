"""The audit worker's loop: stream to rows, in batches, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import redis
from sqlalchemy.exc import DataError, IntegrityError

from techdeck_tasks.audit.sealing import SealedEvent
from techdeck_tasks.audit.stream import AuditStream, Delivery
from techdeck_tasks.audit.writer import AuditWriter, HeadMovedError
from techdeck_tasks.errors import ServiceUnavailableError, ValidationError

logger = logging.getLogger(__name__)

CLAIM_IDLE_MS = 30_000
BLOCK_MS = 500
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


class Drain:
    """Moves entries from the stream into the log until told to stop.

    An entry is acknowledged only after its row is committed. Where PostgreSQL or Redis is away the loop waits
    and tries again, holding one batch; everything else stays in the stream.

    Args:
        stream: where entries come from.
        writer: where they go.
        batch_size: entries a transaction, at most.
    """

    def __init__(self, stream: AuditStream, writer: AuditWriter, batch_size: int) -> None:
        self._stream = stream
        self._writer = writer
        self._batch_size = batch_size
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-drain", daemon=True)
        self.written = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish the batch in hand and what is ready in the stream, then return; at most `timeout_s`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        ready = False
        while True:
            try:
                if not ready:
                    self._stream.ensure_group()
                    ready = True
                    self._take_over()
                stopping = self._stopping.is_set()
                batch = self._next_batch(stopping=stopping)
                if batch:
                    self._write(batch)
                elif stopping:
                    return
                wait_s = FIRST_WAIT_S
            except (redis.RedisError, ServiceUnavailableError, HeadMovedError) as error:
                # The batch stays pending in the group; what was committed and not acknowledged is
                # recognised by its id the next time.
                logger.warning("audit drain waits %.1f s: %s", wait_s, error)
                ready = False
                if self._stopping.wait(wait_s):
                    return
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            except Exception:
                logger.exception("audit drain failed; it goes on in %.1f s", LONGEST_WAIT_S)
                ready = False
                if self._stopping.wait(LONGEST_WAIT_S):
                    return

    def _take_over(self) -> None:
        while batch := self._stream.read_unacknowledged(self._batch_size):
            self._write(batch)

    def _next_batch(self, *, stopping: bool) -> list[Delivery]:
        batch = self._stream.read(self._batch_size, None if stopping else BLOCK_MS)
        return batch or self._stream.claim(self._batch_size, CLAIM_IDLE_MS)

    def _write(self, batch: Sequence[Delivery]) -> None:
        opened: list[tuple[Delivery, SealedEvent]] = []
        for delivery in batch:
            try:
                opened.append((delivery, delivery.entry.open()))
            except ValidationError as error:
                self._set_aside(delivery, error.message)
        try:
            self._write_opened(opened)
        except (DataError, IntegrityError):
            # PostgreSQL is there and refuses something in the batch: alone, each shows whether it is to blame.
            for pair in opened:
                try:
                    self._write_opened([pair])
                except (DataError, IntegrityError) as error:
                    self._set_aside(pair[0], f"PostgreSQL refuses it: {type(error.orig).__name__}")

    def _write_opened(self, opened: Sequence[tuple[Delivery, SealedEvent]]) -> None:
        result = self._writer.write([event for _, event in opened])
        self.written += result.written
        reasons = {id(event): reason for event, reason in result.refused}
        done = []
        for delivery, event in opened:
            if id(event) in reasons:
                self._set_aside(delivery, reasons[id(event)])
            else:
                done.append(delivery)
        self._stream.acknowledge(done)

    def _set_aside(self, delivery: Delivery, reason: str) -> None:
        logger.error("audit entry %s quarantined: %s", delivery.entry_id.decode(), reason)
        self._stream.quarantine(delivery, reason)
