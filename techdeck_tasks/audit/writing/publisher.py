"""Handing sealed events on: to Redis in one round trip, to the spool where Redis is away.

What happens to an event that Redis does not take is the fail policy of its severity:

=========  ===========================================================================================
``spool``  it is fsynced in the spool; where that fails too, it is counted as lost and work goes on
``closed`` it is fsynced in the spool; where that fails too, it is refused: the task must not go on
``open``   it is counted as lost; no disk is waited for
=========  ===========================================================================================

The policy is for errors. What a person or an operator must not do unaudited (read the log, force a breaker)
is refused under any policy. What was lost or refused is put on record, as a gap, once something can be.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Mapping
from functools import partial

import redis
from redis.exceptions import RedisClusterException

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.gap import Gap
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import pack, send
from techdeck_tasks.clock import Clock
from techdeck_tasks.settings import FailPolicy
from techdeck_tasks.storage.redis_client import REDIS_FAILURES

logger = logging.getLogger(__name__)

COOLDOWN_S = 1.0
"""So long after a failure events go straight to the spool: an outage must not cost every event a timeout."""

RESEND_EVERY_S = 1.0
"""So often an idle process looks whether Redis takes what waits."""

RESENDING = "audit-resend"
"""The thread that runs only while something waits."""

_OF_ERRORS = frozenset({EventType.ERROR_HANDLING, EventType.SECURITY_INCIDENT, EventType.COMPLIANCE_NOTICE})


def fail_policy_of(event: AuditEvent, policies: Mapping[str, FailPolicy]) -> FailPolicy:
    """Return what becomes of `event` where Redis does not take it, by the policies of the severities."""
    if event.event_type not in _OF_ERRORS:
        return FailPolicy.CLOSED
    return policies.get(event.severity, FailPolicy.SPOOL)


class StreamPublisher:
    """The `AuditTrail` of real deployments. Safe for threads, and after a fork.

    What waits in the spool is sent by the next event, by a thread that runs only while something waits, and
    by the audit worker's upkeep where it shares the folder.

    Args:
        client: bounded by its own socket timeout, without retries.
        sealer: seals before anything leaves the process.
        spool: keeps what Redis does not take.
        clock: measures the cooldown.
        policies: the fail policy of each severity; ``spool`` where it names none.
    """

    def __init__(
        self,
        client: redis.Redis,
        sealer: Sealer,
        spool: Spool,
        clock: Clock,
        policies: Mapping[str, FailPolicy] | None = None,
    ) -> None:
        self._redis = client
        self._sealer = sealer
        self._spool = spool
        self._clock = clock
        self._policies = policies or {}
        self._quiet_until = 0.0
        self._begin()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _part_from_parent(this()))

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._gap: Gap | None = None
        self._resending: threading.Thread | None = None

    def record(self, event: AuditEvent) -> None:
        """Seal `event` and keep it: in Redis, or fsynced in the spool.

        Takes two round trips at most: its own, and one for a file of those that wait in the spool.

        Raises:
            AuditUnavailableError: neither takes it, and the fail policy is closed.
        """
        sealed = self._sealer.seal(event)
        policy = fail_policy_of(event, self._policies)
        try:
            self._keep(pack(sealed), policy)
        except OSError as error:
            self._lose(Gap.of(event, sealed), error)
            if policy is FailPolicy.CLOSED:
                raise AuditUnavailableError(
                    f"audit event {event.event_id} could be kept neither in Redis nor in the spool "
                    f"({type(error).__name__}); free the disk of TECHDECK_AUDIT_SPOOL_DIR, raise "
                    "TECHDECK_AUDIT_SPOOL_MAX_BYTES, or bring Redis back"
                ) from None
        else:
            self._tell_gap()

    def replay(self, max_files: int | None = None) -> int:
        """Send what waits in the spool, oldest first; return how many events. Never raises.

        What cannot be sent or read now stays for the next time.
        """
        try:
            return self._resend(max_files)
        except (redis.RedisError, RedisClusterException) as error:
            self._pause(error)
        except OSError as error:
            logger.error("the audit spool cannot be drained: %s", error)  # noqa: TRY400 - a state, not a defect
        return 0

    def flush(self) -> None:
        """Send what waits and tell what was lost, as far as that is possible now. For shutdown."""
        self.replay()
        self._tell_gap()

    def _keep(self, payload: bytes, policy: FailPolicy) -> None:
        """Keep `payload`, or raise an OSError."""
        if self._clock.monotonic() >= self._quiet_until and self._reach(payload):
            self.replay(max_files=1)
            return
        if policy is FailPolicy.OPEN:
            raise ConnectionError("Redis is away")
        try:
            self._spool.append(payload)
        except OSError:
            # The last chance before a refusal: Redis may be back before the cooldown is over.
            if policy is FailPolicy.CLOSED and self._reach(payload):
                return
            raise
        self._resend_in_background()

    def _reach(self, payload: bytes) -> bool:
        try:
            send(self._redis, [payload])
        except REDIS_FAILURES as error:
            self._pause(error)
            return False
        return True

    def _pause(self, error: Exception) -> None:
        self._quiet_until = self._clock.monotonic() + COOLDOWN_S
        logger.warning("audit stream unavailable (%s); events go to the spool", type(error).__name__)

    def _resend(self, max_files: int | None = None) -> int:
        # Most often there is nothing: a look at the folder is all this may cost an event.
        return 0 if self._spool.is_empty() else self._spool.drain(partial(send, self._redis), max_files)

    # -- what is lost ------------------------------------------------------------------------------

    def _lose(self, gap: Gap, error: OSError) -> None:
        if self._add(gap):
            logger.critical("audit events are being lost (%s): neither Redis nor the spool takes them", error)
        self._resend_in_background()

    def _add(self, gap: Gap) -> bool:
        """Count `gap`; tell whether it is the first since the last was put on record."""
        with self._lock:
            first = self._gap is None
            self._gap = gap if self._gap is None else self._gap.joined(gap)
        return first

    def _take_gap(self) -> Gap | None:
        with self._lock:
            gap, self._gap = self._gap, None
        return gap

    def _tell_gap(self) -> None:
        gap = self._take_gap()
        if gap is None:
            return
        event = gap.as_event()
        sealed = self._sealer.seal(event)
        try:
            self._keep(pack(sealed), FailPolicy.SPOOL)
        except OSError:
            self._add(gap.joined(Gap.of(event, sealed)))
        else:
            logger.critical("%d audit events are lost; the gap is on record", gap.count)

    # -- while nothing else happens ----------------------------------------------------------------

    def _resend_in_background(self) -> None:
        with self._lock:
            if self._resending is None:
                this = weakref.ref(self)
                self._resending = threading.Thread(
                    target=_resend_until_settled, args=(this,), name=RESENDING, daemon=True
                )
                self._resending.start()

    def _try_to_settle(self) -> bool:
        """Send what waits, if Redis takes it; tell whether this process has nothing left to send."""
        try:
            self._resend()
            if self._gap is not None and self._redis.ping():
                self._tell_gap()
        except REDIS_FAILURES as error:
            logger.debug("what waits in the audit spool cannot be sent yet: %s", error)
            return False
        with self._lock:
            settled = self._gap is None and self._spool.is_empty()
            if settled:
                self._resending = None
        return settled


def _resend_until_settled(publisher: weakref.ref[StreamPublisher]) -> None:
    # No strong reference while it waits: the thread must not keep alive what nobody else uses.
    nap = threading.Event()
    while not nap.wait(RESEND_EVERY_S):
        alive = publisher()
        if alive is None or alive._try_to_settle():  # noqa: SLF001 - a part of the class
            return
        del alive


def _part_from_parent(publisher: StreamPublisher | None) -> None:
    # A child has neither its parent's thread nor its gap, whose numbers are another producer's.
    if publisher is not None:
        publisher._begin()  # noqa: SLF001 - a part of the class
