"""Scheduled tasks that run once a slot, however many beats send them.

Beats that run side by side are out of step by anything between nothing and a whole period. So a slot is no
stretch of the clock: it begins with a run, and for three quarters of the period no other run begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from redis import Redis

from techdeck_tasks.clock import Clock
from techdeck_tasks.storage.redis_client import REDIS_FAILURES

logger = logging.getLogger(__name__)

LAST_RUN = "td:upkeep:"
"""Keys ``td:upkeep:<task>``: when it was last begun, in seconds since 1970. For `techdeck doctor`."""

BEAT_BEGAN = "td:upkeep-beat"
"""When a beat was last started, in seconds since 1970. For `techdeck doctor`."""

_TURN = "td:upkeep-turn:"
"""Keys ``td:upkeep-turn:<task>``: there while the slot is taken."""

_SHARE = 0.75

Result = TypeVar("Result")


def once_a_slot(
    name: str, period: timedelta, body: Callable[[], Result], redis: Callable[[], Redis], clock: Clock
) -> Callable[[], Result | None]:
    """Return `body` as it runs once a slot; in the others it returns None.

    A body that raises gives its turn back: another beat's message may do better. While Redis is away the body
    runs each time: the guard saves work and must prevent none.

    Args:
        name: the task's.
        period: how often a beat sends it.
        body: what it does; to run it twice does no harm.
        redis: where slots are taken.
        clock: the time that is noted.
    """

    def run() -> Result | None:
        if not _take_turn(name, period, redis, clock):
            return None
        try:
            return body()
        except Exception:
            _give_back(name, redis)
            raise

    return run


def note_beat(redis: Callable[[], Redis], clock: Clock) -> None:
    """Note that a beat starts now. While Redis is away nothing is noted."""
    try:
        redis().set(BEAT_BEGAN, int(clock.now().timestamp()))
    except REDIS_FAILURES as away:
        logger.warning("the beat's start is not noted: Redis does not answer (%s)", type(away).__name__)


def _take_turn(name: str, period: timedelta, redis: Callable[[], Redis], clock: Clock) -> bool:
    try:
        taken = redis().set(_TURN + name, b"1", nx=True, px=int(period.total_seconds() * _SHARE * 1000))
        if taken:
            redis().set(LAST_RUN + name, int(clock.now().timestamp()))
    except REDIS_FAILURES as away:
        logger.warning("%s runs unguarded: Redis does not answer (%s)", name, type(away).__name__)
        return True
    return bool(taken)


def _give_back(name: str, redis: Callable[[], Redis]) -> None:
    try:
        redis().delete(_TURN + name)
    except REDIS_FAILURES as away:
        logger.warning("the turn of %s is not given back (%s)", name, type(away).__name__)
