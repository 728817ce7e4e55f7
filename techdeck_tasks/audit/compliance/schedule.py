"""When a scheduled report is due: once for each day, week or month of UTC that is over."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from techdeck_tasks.audit.compliance.store import ReportKind, ReportStore

SETTLING = timedelta(hours=1)
"""So long after a period ends its report waits for events that are still on their way."""


def last_period(kind: ReportKind, now: datetime) -> tuple[datetime, datetime]:
    """Return start and end of the last `kind` of period over for an hour; weeks begin on Monday."""
    today = (now - SETTLING).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind is ReportKind.DAILY:
        return today - timedelta(days=1), today
    if kind is ReportKind.WEEKLY:
        end = today - timedelta(days=today.weekday())
        return end - timedelta(days=7), end
    if kind is ReportKind.MONTHLY:
        end = today.replace(day=1)
        return (end - timedelta(days=1)).replace(day=1), end
    raise ValueError(f"{kind} reports follow no schedule")


def make_due(store: ReportStore, kinds: Iterable[ReportKind], now: datetime) -> int:
    """Make the reports of `kinds` that are due and not there; return how many. Safe to run twice at once.

    Raises:
        AuditUnavailableError: one cannot be recorded; it comes with the next call.
        ServiceUnavailableError: PostgreSQL is away.
    """
    made = (store.make(kind, *last_period(kind, now), by="schedule") for kind in kinds)
    return sum(report is not None for report in made)
