"""When a schedule is due: crontab expressions, in UTC."""

from __future__ import annotations

from datetime import datetime, timedelta

from celery.schedules import ParseException, crontab

_FIELDS = 5


def read_cron(expression: str) -> crontab:
    """Return a crontab expression, parsed.

    Raises:
        ValueError: it has not five fields, or one is out of its range.
    """
    if len(expression.split()) != _FIELDS:
        raise ValueError("write five fields: minute, hour, day of month, month, day of week")
    try:
        return crontab.from_string(expression)
    except (ParseException, ValueError, KeyError) as error:
        raise ValueError(f"this is no crontab expression: {error}") from None


def latest_slot(expression: str, after: datetime, now: datetime) -> datetime | None:
    """Return the last moment that `expression` names in ``after < moment <= now``; None where there is none.

    Slots that passed while nothing could start them are not made up for: the latest stands for all.
    """
    cron = read_cron(expression)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    while day + timedelta(days=1) > after:
        latest = next((slot for slot in reversed(_slots(cron, day)) if slot <= now), None)
        if latest is not None:
            return latest if latest > after else None
        day -= timedelta(days=1)
    return None


def next_slot(expression: str, after: datetime) -> datetime:
    """Return the first moment after `after` that `expression` names."""
    cron = read_cron(expression)
    day = after.replace(hour=0, minute=0, second=0, microsecond=0)
    # It ends: an expression of a day that no month has is refused when it is read.
    while True:
        following = next((slot for slot in _slots(cron, day) if slot > after), None)
        if following is not None:
            return following
        day += timedelta(days=1)


def _slots(cron: crontab, day: datetime) -> list[datetime]:
    # As in Celery, and unlike cron(8), both kinds of day must fit.
    fits = (
        day.month in cron.month_of_year
        and day.day in cron.day_of_month
        and day.isoweekday() % 7 in cron.day_of_week
    )
    if not fits:
        return []
    return [
        day.replace(hour=hour, minute=minute) for hour in sorted(cron.hour) for minute in sorted(cron.minute)
    ]
