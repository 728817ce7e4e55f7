"""A breaker's status as data for people and monitors. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from techdeck_tasks.resilience.breaker.config import BreakerConfig
    from techdeck_tasks.resilience.breaker.state import Reply


def status_of(name: str, config: BreakerConfig, reply: Reply | None) -> dict[str, Any]:
    """Return a breaker's status, JSON-safe.

    The specification's keys are ``operation_name``, ``state``, ``failure_count``, ``last_failure_time`` (ISO
    8601, UTC, or None) and ``success_count`` (of this half-open period). ``state`` is an operator's override
    where there is one; ``underlying_state`` is what it hides.

    Args:
        name: the breaker's.
        config: its configuration in this process.
        reply: what its store said; None: nobody knows, because Redis is away and no local breaker answers.
    """
    if reply is None:
        return {
            "operation_name": name,
            "state": "unknown",
            "failure_count": 0,
            "last_failure_time": None,
            "success_count": 0,
            "threshold": config.failure_threshold,
        }
    override = reply.override
    return {
        "operation_name": name,
        "state": reply.effective.value,
        "failure_count": reply.failures,
        "last_failure_time": _iso(reply.last_failure_ms),
        "success_count": reply.probe_successes,
        "threshold": config.failure_threshold,
        "underlying_state": reply.state.value,
        "epoch": reply.epoch,
        "trips": reply.trips,
        "retry_after_seconds": reply.open_left_ms / 1000,
        "paced_seconds": reply.drain_left_ms / 1000,
        "window": {"calls": reply.calls, "slow": reply.slow},
        "override": None
        if override is None
        else {
            "state": override.state.value,
            "owner": override.owner,
            "reason": override.reason,
            "seconds_left": override.left_ms / 1000 if override.left_ms else None,
        },
    }


def _iso(ms: int) -> str | None:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat() if ms else None
