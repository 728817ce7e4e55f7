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
        # As in Celery, and unlike cron(8), both kinds of day must fit.
        if (
            day.month in cron.month_of_year
            and day.day in cron.day_of_month
            and day.isoweekday() % 7 in cron.day_of_week
        ):
            slots = (
                day.replace(hour=hour, minute=minute)
                for hour in sorted(cron.hour, reverse=True)
                for minute in sorted(cron.minute, reverse=True)
            )
            latest = next((slot for slot in slots if slot <= now), None)
            if latest is not None:
                return latest if latest > after else None
        day -= timedelta(days=1)
    return None
