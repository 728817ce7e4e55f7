"""How things stand at one moment: all that conditions may judge by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Any

from techdeck_tasks.audit.incidents.incident import Incident
from techdeck_tasks.audit.proof.verify_run import Verification
from techdeck_tasks.audit.writing.backlog import AuditBacklog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A snapshot. What could not be found out has its default and is named in `unknown`.

    Attributes:
        now: when it was taken, aware UTC.
        unknown: names of the attributes that could not be found out.
        error_conditions: what `ErrorMetricsCollector.get_alert_conditions` returns.
        breakers: the state of each circuit breaker.
        backlog: audit events on their way to the log.
        verification: the last verification of the audit log; None: there was none yet.
        overdue_months: months of the audit log that should have been archived and dropped.
        watched_since: when alerts were first evaluated here; None: never before.
        unnotified_incidents: security incidents of which no channel has accepted a notification.
        due_incidents: unresolved ones whose deadline is near or over.
        dead_letters: tasks that failed for good.
        interventions: tasks that wait for a person.
        quarantined_messages: messages that no worker could read.
    """

    now: datetime
    unknown: frozenset[str] = frozenset()
    error_conditions: tuple[Mapping[str, Any], ...] = ()
    breakers: Mapping[str, str] = field(default_factory=dict)
    backlog: AuditBacklog | None = None
    verification: Verification | None = None
    overdue_months: tuple[date, ...] = ()
    watched_since: datetime | None = None
    unnotified_incidents: tuple[Incident, ...] = ()
    due_incidents: tuple[Incident, ...] = ()
    dead_letters: int = 0
    interventions: int = 0
    quarantined_messages: int = 0


Sources = Mapping[str, Callable[[], Any]]
"""How each attribute of a `Situation` is found out, by its name."""

ATTRIBUTES = frozenset(f.name for f in fields(Situation)) - {"now", "unknown"}


def gather(sources: Sources, now: datetime) -> Situation:
    """Ask every source. One that fails is logged and named in `unknown`, and stops no other."""
    known: dict[str, Any] = {}
    for name, source in sources.items():
        try:
            known[name] = source()
        except Exception as failure:  # noqa: BLE001 - one source must not hide what the others tell
            # The text of a foreign exception may quote data.
            logger.warning("alerts: %s cannot be found out (%s)", name, type(failure).__name__)
    return Situation(now=now, unknown=ATTRIBUTES - known.keys(), **known)
