"""What waits and what is shut right now, for monitoring: looked up where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from techdeck_tasks.audit.writing.backlog import AuditBacklog
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.metrics.prometheus import Gauge, Labels
from techdeck_tasks.resilience.breaker import BreakerRegistry, State
from techdeck_tasks.tasks.broker import OUTAGE
from techdeck_tasks.tasks.letters import LetterStore
from techdeck_tasks.tasks.quarantine import Quarantine

if TYPE_CHECKING:
    from celery import Celery


def gauges(
    *,
    breakers: BreakerRegistry,
    dead_letters: LetterStore,
    interventions: LetterStore,
    quarantine: Quarantine,
    backlog: Callable[[], AuditBacklog],
    app: Celery | None,
    queues: Sequence[str],
) -> list[Gauge]:
    """Return every gauge, for one scrape: the backlog is measured once, and only if it is asked for.

    Args:
        breakers: those whose state is shown.
        dead_letters: tasks that failed for good.
        interventions: tasks that wait for a person.
        quarantine: messages that no worker could read.
        backlog: measures the audit events on their way to the log.
        app: whose broker is asked; None: no queue is shown.
        queues: whose length is shown.
    """

    def single(read: Callable[[], int]) -> Callable[[], Mapping[Labels, float]]:
        return lambda: {(): read()}

    measured = cache(backlog)

    def waiting(name: str, said: str, part: Callable[[AuditBacklog], float | None]) -> Gauge:
        return Gauge(name, said, lambda: {(): _known(part(measured()))})

    shown = [
        Gauge(
            "techdeck_breaker_state",
            "1 for the state that a circuit breaker is in, 0 for the others.",
            lambda: _breaker_states(breakers),
            ("breaker", "state"),
        ),
        Gauge("techdeck_dead_letters", "Tasks that failed for good.", single(dead_letters.count)),
        Gauge("techdeck_interventions", "Tasks that wait for a person.", single(interventions.count)),
        Gauge(
            "techdeck_quarantined_messages",
            "Messages that no worker could read.",
            single(quarantine.count),
        ),
        waiting(
            "techdeck_audit_quarantined_events",
            "Audit events that could not be written.",
            lambda found: found.quarantined_entries,
        ),
        waiting(
            "techdeck_audit_stream_length",
            "Audit events on their way to the log.",
            lambda found: found.stream_entries,
        ),
        waiting(
            "techdeck_audit_stream_pending",
            "Audit events that a writer has read and not yet committed.",
            lambda found: found.pending_entries,
        ),
        waiting(
            "techdeck_audit_oldest_event_seconds",
            "How long the oldest audit event has been on its way to the log.",
            lambda found: found.oldest_age_s,
        ),
        waiting(
            "techdeck_audit_spool_bytes",
            "Audit events on this machine's disk.",
            lambda found: found.spool_bytes,
        ),
    ]
    if app is not None:
        shown.append(
            Gauge(
                "techdeck_queue_length",
                "Messages that wait for a worker.",
                lambda: {(queue,): length for queue, length in queue_lengths(app, queues).items()},
                ("queue",),
            )
        )
    return shown


def queue_lengths(app: Celery, queues: Sequence[str]) -> dict[str, int]:
    """Return how many messages wait in each of `queues`.

    Raises:
        ServiceUnavailableError: the broker is away.
    """
    try:
        with app.connection_for_read() as connection:
            # The default channel would ask for six seconds: a scrape must say at once that nobody answers.
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            channel = connection.channel()
            # Not a passive declaration, which Redis refuses for an empty queue.
            return {queue: int(channel._size(queue)) for queue in queues}  # noqa: SLF001 - kombu's own name for it
    except OUTAGE as failure:
        raise ServiceUnavailableError(
            f"the broker does not answer ({type(failure).__name__})", service_name="broker"
        ) from None


def _breaker_states(breakers: BreakerRegistry) -> dict[Labels, float]:
    return {
        (name, state.value): float(status["state"] == state.value)
        for name, status in breakers.get_status().items()
        for state in State
    }


def _known(value: float | None) -> float:
    if value is None:
        raise ServiceUnavailableError("Redis does not answer", service_name="redis")
    return value
