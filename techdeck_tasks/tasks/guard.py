"""The circuit breaker around the attempts of a task.

Only what says that the other side is unwell counts against it: a bad input or a defect of the task's own
opens no breaker. What a task that meets an open breaker does is `Shut`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from techdeck_tasks.errors import Classification
from techdeck_tasks.resilience.breaker import BreakerConfig, BreakerRegistry, CircuitBreaker, Permit
from techdeck_tasks.resilience.breaker.core import LONGEST_NAME

COUNTED: Final = frozenset({"SERVICE_UNAVAILABLE", "CONNECTION_ERROR", "TIMEOUT_ERROR"})
"""Codes of errors that count as failures of the service; all others free the permit and count for nothing."""

BreakerOption = bool | str | BreakerConfig
"""True: the breaker of the task's service; False: none; a name; or a configuration for the service's."""


class Shut(StrEnum):
    """What a task does that meets an open breaker."""

    PARK = "park"
    """It is sent again for the moment the breaker may let one through; no attempt is spent."""
    FALLBACK = "fallback"
    """Its fallback stands in at once."""
    RAISE = "raise"
    """It fails with CircuitBreakerError."""


def breaker_of(breakers: BreakerRegistry, option: BreakerOption, service: str) -> CircuitBreaker | None:
    """Return the breaker that `option` names, made where it is new; None for none."""
    name = breaker_name(option, service)
    if name is None:
        return None
    if isinstance(option, BreakerConfig) and breakers.get(name).config != option:
        return breakers.configure(name, option)
    return breakers.get(name)


def breaker_name(option: BreakerOption, service: str) -> str | None:
    """Return the name of the breaker that `option` means for a task of `service`."""
    if option is False:
        return None
    name = option if isinstance(option, str) else service
    # Names of tasks may hold what the name of a breaker must not.
    shown = "".join(char if char.isprintable() else "?" for char in name[:LONGEST_NAME])
    return shown.replace("{", "(").replace("}", ")")


def report_failure(
    breaker: CircuitBreaker, permit: Permit, error: Exception, found: Classification, *, wants_retry: bool
) -> bool:
    """Tell the breaker how the attempt failed; return whether the shared retry budget pays for another.

    Args:
        breaker: the one that gave `permit`.
        permit: of this attempt; settled afterwards.
        error: what happened.
        found: what it is.
        wants_retry: a retry would follow; it is paid for.
    """
    if found.error_code not in COUNTED:
        permit.release()
        return True
    return permit.failure(cost=breaker.config.budget.cost_of(error) if wants_retry else 0)
