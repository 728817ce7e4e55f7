"""Periods of time, as people give them."""

from __future__ import annotations

from datetime import datetime

from techdeck_tasks.errors import ValidationError


def check_period(what: str, since: datetime | None, until: datetime | None) -> None:
    """Refuse a period whose times are not aware, or that ends before it begins.

    Args:
        what: the period is of, as the message names it.
        since: the first moment; None: there is none.
        until: the first moment after; None: there is none.

    Raises:
        ValidationError: it is no period.
    """
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.tzinfo is None:
            raise ValidationError(
                f"{what} takes aware times; say which time zone {name!r} is in, such as 2026-01-31T08:00:00Z",
                field=name,
            )
    if since is not None and until is not None and since >= until:
        raise ValidationError(f"{what}: 'since' must be before 'until'; swap them", field="since")
