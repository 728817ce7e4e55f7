"""The pool's children and the lock of the counter that they look at."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import billiard
import pytest
from billiard import SimpleQueue
from celery.concurrency import asynpool

from techdeck_tasks.tasks.pool import LocklessWorker, PromptPool


def _worker(kind: Any, counter: Any) -> Any:
    return kind(SimpleQueue(), SimpleQueue(), on_ready_counter=counter)


@contextmanager
def _child(body: Callable[[int], object]) -> Iterator[int]:
    """Fork a child that runs `body` with the end of a pipe to write to; yield the end to read from."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        body(writable)
        signal.pause()
    try:
        yield readable
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(readable)
        os.close(writable)


@pytest.fixture
def counter() -> Any:
    return billiard.Value("i")


def _looks_while_another_holds_the_lock(kind: Any, counter: Any, within_s: float) -> bool:
    worker = _worker(kind, counter)

    def hold(pipe: int) -> None:
        counter.get_lock().acquire()
        os.write(pipe, b"held")

    def look(pipe: int) -> None:
        worker.on_ready_counter.value  # noqa: B018 - to look is all
        os.write(pipe, b"seen")

    with _child(hold) as held:
        os.read(held, 4)
        with _child(look) as seen:
            return bool(select.select([seen], [], [], within_s)[0])


def test_celerys_child_takes_the_counters_lock_to_look_at_it(counter: Any) -> None:
    """Why this pool has a worker of its own: a child killed then keeps it."""
    assert not _looks_while_another_holds_the_lock(asynpool.Worker, counter, 0.3)


def test_a_child_looks_at_the_counter_without_its_lock(counter: Any) -> None:
    assert _looks_while_another_holds_the_lock(LocklessWorker, counter, 30)


def test_a_child_sees_what_the_main_process_counts(counter: Any) -> None:
    worker = _worker(LocklessWorker, counter)
    counter.value += 2
    assert worker._ensure_messages_consumed(2)
    assert PromptPool.Worker is LocklessWorker
