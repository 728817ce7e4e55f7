from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from techdeck_tasks.pipeline.cron import latest_slot, next_slot, read_cron

NOW = datetime(2026, 3, 1, 5, 7, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "since", "expected"),
    [
        ("*/15 * * * *", timedelta(hours=1), datetime(2026, 3, 1, 5, 0, tzinfo=UTC)),
        ("*/15 * * * *", timedelta(minutes=7), None),
        ("7 5 * * *", timedelta(seconds=31), datetime(2026, 3, 1, 5, 7, tzinfo=UTC)),
        ("7 5 * * *", timedelta(seconds=30), None),
        ("0 6 * * *", timedelta(days=3), datetime(2026, 2, 28, 6, 0, tzinfo=UTC)),
        ("0 6 29 2 *", timedelta(days=1000), datetime(2024, 2, 29, 6, 0, tzinfo=UTC)),
        ("30 23 * * mon", timedelta(days=9), datetime(2026, 2, 23, 23, 30, tzinfo=UTC)),
        ("0 0 * * 0", timedelta(days=9), datetime(2026, 3, 1, 0, 0, tzinfo=UTC)),
    ],
)
def test_the_latest_slot_stands_for_all_that_passed(
    expression: str, since: timedelta, expected: datetime | None
) -> None:
    assert latest_slot(expression, NOW - since, NOW) == expected


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "61 * * * *", "* * * * nosuchday", "@daily", "0 0 0 0 0", "0 6 31 4 *"]
)
def test_what_is_no_crontab_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"five fields|no crontab expression"):
        read_cron(expression)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", datetime(2096, 3, 1, 12, 31, tzinfo=UTC)),
        ("30 12 * * *", datetime(2096, 3, 2, 12, 30, tzinfo=UTC)),
        ("0 6 1 4 *", datetime(2096, 4, 1, 6, 0, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2104, 2, 29, 0, 0, tzinfo=UTC)),
    ],
)
def test_the_next_slot_is_after_now_and_may_be_years_away(expression: str, expected: datetime) -> None:
    assert next_slot(expression, datetime(2096, 3, 1, 12, 30, tzinfo=UTC)) == expected
