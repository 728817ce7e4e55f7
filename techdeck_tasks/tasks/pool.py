"""Celery's process pool, which replaces a child as soon as it has ended.

The kernel closes a dying process's pipes a moment before the process can be waited for. Celery's pool looks
once, when the pipe closes; where it looks too early, it looks again at its next round, up to 5 s later, and
the child's place stays empty: after every `worker_max_tasks_per_child` tasks, and after every killed child.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork

LOOK_AGAIN_S = 0.01


class PromptPool(asynpool.AsynPool):  # type: ignore[misc]  # celery ships no types
    """Looks until the child that closed its pipe has ended."""

    def _event_process_exit(self, hub: Any, process: Any) -> None:
        super()._event_process_exit(hub, process)
        if process in self._pool:
            hub.call_later(LOOK_AGAIN_S, self._event_process_exit, hub, process)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]  # as above
    """Celery's pool of processes."""

    Pool = PromptPool
