"""Handing sealed events on: to Redis in one round trip, to the spool where Redis is away."""

from __future__ import annotations

import logging
from functools import partial

import redis
from redis.exceptions import RedisClusterException

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.spool import Spool
from techdeck_tasks.audit.stream import pack, send
from techdeck_tasks.clock import Clock
from techdeck_tasks.storage.redis_client import REDIS_FAILURES

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

        Takes two round trips at most: its own, and one for a file of those that wait in the spool.

        Raises:
            AuditUnavailableError: neither takes it.
        """
        payload = pack(self._sealer.seal(event))
        if self._clock.monotonic() >= self._quiet_until:
            try:
                send(self._redis, [payload])
            except REDIS_FAILURES as error:
                self._pause(error)
            else:
                self.replay(max_files=1)
                return
        try:
            self._spool.append(payload)
        except OSError as error:
            raise AuditUnavailableError(
                f"audit event {event.event_id} could be kept neither in Redis nor in the spool "
                f"({type(error).__name__}); free the disk of TECHDECK_AUDIT_SPOOL_DIR, or bring Redis back"
            ) from None

    def replay(self, max_files: int | None = None) -> int:
        """Send what waits in the spool, oldest first; return how many events. Never raises.

        What cannot be sent or read now stays for the next time.
        """
        try:
            # Most often there is nothing: a look at the folder is all this may cost an event.
            return 0 if self._spool.is_empty() else self._spool.drain(partial(send, self._redis), max_files)
        except (redis.RedisError, RedisClusterException) as error:
            self._pause(error)
        except OSError as error:
            logger.error("the audit spool cannot be drained: %s", error)  # noqa: TRY400 - a state, not a defect
        return 0

    def _pause(self, error: Exception) -> None:
        self._quiet_until = self._clock.monotonic() + COOLDOWN_S
        logger.warning("audit stream unavailable (%s); events go to the spool", type(error).__name__)
