"""Everything a process can use, put together."""

from __future__ import annotations

from techdeck_tasks.audit.event import AuditTrail
from techdeck_tasks.runtime.pipelines import Pipelines
from techdeck_tasks.tasks.services import LogTrail


class Runtime(Pipelines):
    """Everything a process can use, each part made when it is first needed.

    Making a runtime connects to nothing. After a fork the child's parts make connections of their own.

    Args:
        settings: what the process was told.
        clock: the time.
        rng: where jitter comes from.
    """

    def flush(self) -> None:
        """Tell what this process still keeps: successes, retries, metrics, events. For shutdown."""
        self.breakers.flush()
        self.retry_registry.flush()
        self.metrics_recorder.flush()
        self.flush_audit()


class KeylessRuntime(Runtime):
    """A runtime whose errors go to the log alone: without keys nothing can be sealed."""

    @property
    def trail(self) -> AuditTrail:
        """The log."""
        return LogTrail()
