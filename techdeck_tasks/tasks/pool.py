"""Celery's process pool, without two ways in which it waits for a child that has ended.

The kernel closes a dying process's pipes a moment before the process can be waited for. Celery's pool looks
once, when the pipe closes; where it looks too early, it looks again at its next round, up to 5 s later, and
the child's place stays empty: after every `worker_max_tasks_per_child` tasks, and after every killed child.

And a child looks, before it ends, whether the main process has read its results: at a counter under a lock
that both share. A child that is killed while it looks takes the lock with it, and the main process waits for
it for ever, with its next result.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork

LOOK_AGAIN_S = 0.01


class SeenCounter:
    """A counter of the main process, as a child reads it: without the lock, since one process alone writes.

    Args:
        shared: the number and its lock.
    """

    def __init__(self, shared: Any) -> None:
        self._number = shared.get_obj()

    @property
    def value(self) -> int:
        """The number, a machine word."""
        return int(self._number.value)


class LocklessWorker(asynpool.Worker):  # type: ignore[misc]  # celery ships no types
    """The loop of a child, which holds no lock that the main process needs."""

    def __init__(self, *args: Any, on_ready_counter: Any = None, **kwargs: Any) -> None:
        seen = None if on_ready_counter is None else SeenCounter(on_ready_counter)
        super().__init__(*args, on_ready_counter=seen, **kwargs)


class PromptPool(asynpool.AsynPool):  # type: ignore[misc]  # as above
    """Looks until the child that closed its pipe has ended."""

    Worker = LocklessWorker

    def _event_process_exit(self, hub: Any, process: Any) -> None:
        super()._event_process_exit(hub, process)
        if process in self._pool:
            hub.call_later(LOOK_AGAIN_S, self._event_process_exit, hub, process)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]  # as above
    """Celery's pool of processes."""

    Pool = PromptPool
