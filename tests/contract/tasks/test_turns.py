"""One run a slot, on a real Redis."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.tasks.turns import LAST_RUN, once_a_slot

PERIOD = timedelta(seconds=0.4)


@pytest.fixture
def guarded(redis_client: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    name = f"turns-{uuid.uuid4().hex}"
    return lambda body: once_a_slot(name, PERIOD, body, lambda: redis_client, SystemClock())


def test_a_body_runs_once_a_slot_and_again_in_the_next(guarded: Any) -> None:
    done: list[float] = []
    task = guarded(lambda: done.append(time.monotonic()))
    ends = time.monotonic() + 5
    while len(done) < 3:
        task()
        assert time.monotonic() < ends
    gaps = [after - before for before, after in pairwise(done)]
    assert min(gaps) > 0.6 * PERIOD.total_seconds()


def test_a_body_that_raises_leaves_its_turn_to_the_next_message(guarded: Any) -> None:
    answers = iter([ValueError("the database is away"), "done"])

    def body() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    task = guarded(body)
    with pytest.raises(ValueError, match="away"):
        task()
    assert task() == "done"
    assert task() is None


def test_when_it_last_began_is_noted(redis_client: Any) -> None:
    name = f"turns-{uuid.uuid4().hex}"
    once_a_slot(name, PERIOD, lambda: None, lambda: redis_client, SystemClock())()
    assert abs(int(redis_client.get(LAST_RUN + name)) - time.time()) < 5


def test_without_redis_every_message_counts() -> None:
    gone = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    done: list[int] = []
    task = once_a_slot("turns-away", PERIOD, lambda: done.append(1), lambda: gone, SystemClock())
    task()
    task()
    assert done == [1, 1]
