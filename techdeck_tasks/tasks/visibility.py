"""The one limit a retry policy must respect on Redis: the broker's visibility timeout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from techdeck_tasks.resilience.backoff import RetryPolicy
from techdeck_tasks.settings import SettingsError

if TYPE_CHECKING:
    from celery import Celery

KOMBU_DEFAULT_S = 3600
_SHARE = 0.5
"""A waiting message is safe for so much of the visibility timeout; the run comes on top."""

_REDIS_SCHEMES = ("redis", "rediss", "sentinel")


def refuse_long_countdowns(task_name: str, policy: RetryPolicy, app: Celery) -> None:
    """Check that no countdown of `policy` outlasts the visibility timeout of `app`'s broker.

    Redis hands a message that waits longer to another worker as well, and the task runs twice.

    Raises:
        SettingsError: one may.
    """
    timeout_s = _visibility_timeout_s(app)
    if timeout_s is not None and policy.longest_countdown_s > timeout_s:
        raise SettingsError(
            f"task {task_name}: its retry policy may wait {policy.longest_countdown_s:g} s, longer than the "
            f"broker's visibility_timeout of {timeout_s:g} s, after which Redis runs the task twice; lower "
            "cap_s, retry_after_cap_s or budget_s, or raise TECHDECK_VISIBILITY_TIMEOUT_SECONDS"
        )


def longest_wait_s(app: Celery) -> float:
    """Return the longest countdown in seconds that `app`'s broker keeps to; infinite without a limit."""
    timeout_s = _visibility_timeout_s(app)
    return math.inf if timeout_s is None else timeout_s * _SHARE


def _visibility_timeout_s(app: Celery) -> float | None:
    told = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    if told is not None:
        return float(told)
    # Elsewhere an unacknowledged message belongs to its connection and not to a clock.
    scheme = str(app.conf.broker_url or "").partition(":")[0]
    return float(KOMBU_DEFAULT_S) if scheme in _REDIS_SCHEMES else None
