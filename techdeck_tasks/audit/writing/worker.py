"""The part of a Celery worker that makes it an audit worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import bootsteps

from techdeck_tasks.audit.proof.custody import Custody
from techdeck_tasks.audit.writing.drain import Drain


def drain_step(
    make_drain: Callable[[str], Drain], make_custody: Callable[[], Custody] | None = None
) -> type[bootsteps.StartStopStep]:
    """Return a bootstep that drains the stream beside the worker's event loop.

    Args:
        make_drain: gives the drain of a worker, by its node name (``audit@host``), which also names its
            consumer and its chain.
        make_custody: gives what signs and copies the log meanwhile; its last checkpoint covers the drain's
            last rows.
    """

    class DrainStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
        """Starts with the worker; stops after the batch in hand is committed and acknowledged."""

        def __init__(self, worker: Any, **kwargs: Any) -> None:
            super().__init__(worker, **kwargs)
            self._drain: Drain | None = None
            self._custody: Custody | None = None

        def start(self, worker: Any) -> None:
            """Begin."""
            self._drain = make_drain(worker.hostname)
            self._drain.start()
            if make_custody is not None:
                self._custody = make_custody()
                self._custody.start()

        def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's signature
            """End in order."""
            if self._drain is not None:
                self._drain.stop()
            if self._custody is not None:
                self._custody.stop()

        terminate = stop

    return DrainStep
