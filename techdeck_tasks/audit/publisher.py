"""Handing sealed events on: to Redis in one round trip, to the spool where Redis is away."""

from __future__ import annotations

import logging

import redis

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.spool import Spool
from techdeck_tasks.audit.stream import STREAM, Entry
from techdeck_tasks.clock import Clock

logger = logging.getLogger(__name__)

COOLDOWN_S = 1.0
"""So long after a failure events go straight to the spool: an outage must not cost every event a timeout."""


class StreamPublisher:
    """The `AuditTrail` of real deployments.

    Args:
        client: bounded by its own socket timeout, without retries.
        sealer: seals before anything leaves the process.
        spool: keeps what Redis does not take.
        clock: measures the cooldown.
    """

    def __init__(self, client: redis.Redis, sealer: Sealer, spool: Spool, clock: Clock) -> None:
        self._redis = client
        self._sealer = sealer
        self._spool = spool
        self._clock = clock
        self._quiet_until = 0.0

    def record(self, event: AuditEvent) -> None:
        """Seal `event` and keep it: in Redis, or fsynced in the spool.

        Raises:
            AuditUnavailableError: neither takes it.
        """
        entry = Entry.of(self._sealer.seal(event))
        if self._clock.monotonic() >= self._quiet_until:
            try:
                self._send(entry)
            except redis.RedisError as error:
                self._quiet_until = self._clock.monotonic() + COOLDOWN_S
                logger.warning("audit stream unavailable (%s); events go to the spool", type(error).__name__)
            else:
                self.replay()
                return
        try:
            self._spool.append(entry.to_bytes())
        except OSError as error:
            raise AuditUnavailableError(
                f"audit event {event.event_id} could be kept neither in Redis nor in the spool "
                f"({type(error).__name__}); free the disk of TECHDECK_AUDIT_SPOOL_DIR, or bring Redis back"
            ) from None

    def replay(self) -> int:
        """Send what waits in the spool; return how many events. Stops quietly where Redis is away again."""
        if self._spool.is_empty():
            return 0
        try:
            return self._spool.drain(lambda payload: self._send(Entry.from_bytes(payload)))
        except redis.RedisError:
            return 0

    def _send(self, entry: Entry) -> None:
        self._redis.xadd(STREAM, entry.fields())  # type: ignore[arg-type]  # dict is invariant in its values
