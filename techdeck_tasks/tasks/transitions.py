"""Putting the breakers' transitions on record.

The scripts inside Redis write every change of state into a stream, whoever caused it and whatever became of
that process. From there each is recorded once: one reader at a time, its place kept in Redis.
"""

from __future__ import annotations

from typing import cast

from redis import Redis

from techdeck_tasks.audit.event import AuditEvent, AuditTrail, EventType
from techdeck_tasks.errors import Severity
from techdeck_tasks.resilience.breaker import BreakerRegistry, State

CURSORS = "td:cb:recorded"
LOCK = "td:cb:recording"
LOCK_S = 30

_BAD = frozenset({State.OPEN, State.FORCED_OPEN})


def record_transitions(
    breakers: BreakerRegistry, trail: AuditTrail, client: Redis, retention_days: int
) -> int:
    """Record the transitions since the last call, and return how many; 0 while another process is at it.

    Raises:
        ServiceUnavailableError: Redis is away.
        AuditUnavailableError: nothing can be recorded; the rest comes with the next call.
    """
    if not client.set(LOCK, b"1", nx=True, ex=LOCK_S):
        return 0
    try:
        stored = cast("dict[bytes, bytes]", client.hgetall(CURSORS))
        cursors = {name.decode(): cursor.decode() for name, cursor in stored.items()}
        recorded = 0
        for name, cursor, change in breakers.transitions(cursors):
            trail.record(
                AuditEvent(
                    event_type=EventType.BREAKER_TRANSITION,
                    severity=Severity.HIGH if change.new in _BAD else Severity.LOW,
                    service=name,
                    operation="breaker",
                    outcome=change.new,
                    retention_days=retention_days,
                    document={
                        "message": f"breaker {name}: {change.old} -> {change.new}: {change.reason}",
                        "epoch": change.epoch,
                        "owner": change.owner,
                        "occurred_at": change.occurred_at.isoformat(),
                    },
                )
            )
            client.hset(CURSORS, name, cursor)
            recorded += 1
        return recorded
    finally:
        client.delete(LOCK)
