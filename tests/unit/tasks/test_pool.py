"""The pool's children and the lock of the counter that they look at."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import billiard
import pytest
from billiard import SimpleQueue
from celery.concurrency import asynpool

from techdeck_tasks.tasks.pool import LocklessWorker, PromptPool

LOOKS_S = 1.0


def _worker(kind: Any, counter: Any) -> Any:
    return kind(SimpleQueue(), SimpleQueue(), on_ready_counter=counter)


def _child_that_looks(kind: Any, counter: Any) -> int:
    """Fork a child that looks at the counter for ever, as one does whose results nobody has read yet."""
    worker = _worker(kind, counter)
    child = os.fork()
    if child == 0:
        while True:
            worker.on_ready_counter.value  # noqa: B018 - to look is all
    return child


@pytest.fixture
def counter() -> Any:
    return billiard.Value("i")


def _still_usable_after_kills(kind: Any, counter: Any, children: int) -> bool:
    for _ in range(children):
        child = _child_that_looks(kind, counter)
        time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if not counter.get_lock().acquire(timeout=LOOKS_S):
            return False
        counter.get_lock().release()
    return True


def test_celerys_child_takes_the_lock_of_the_counter_with_it(counter: Any) -> None:
    """Why this pool has a worker of its own: where this fails, it needs none any more."""
    assert not _still_usable_after_kills(asynpool.Worker, counter, 500)


def test_a_child_that_is_killed_while_it_looks_leaves_the_counter_usable(counter: Any) -> None:
    assert _still_usable_after_kills(LocklessWorker, counter, 100)


def test_a_child_sees_what_the_main_process_counts(counter: Any) -> None:
    worker = _worker(LocklessWorker, counter)
    counter.value += 2
    assert worker._ensure_messages_consumed(2)
    assert PromptPool.Worker is LocklessWorker
