"""Months: how the log is partitioned."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta


def first_day_of(month: date) -> date:
    """Return the first day of the month that `month` is a day of."""
    return date(month.year, month.month, 1)


def bounds_of(month: date) -> tuple[datetime, datetime]:
    """Return the first moment of a month and the first one after it, aware UTC."""
    first = first_day_of(month)
    following = first_day_of(first + timedelta(days=31))
    return _midnight(first), _midnight(following)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
