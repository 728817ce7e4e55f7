"""The compliance report of a period, as JSON-safe data under the specification's keys and more."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine, text

from techdeck_tasks.audit.compliance.controls import control_mapping, remediation_actions
from techdeck_tasks.audit.compliance.figures import MAX_VIOLATIONS, Count, Tally, incidents, tally, violations
from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.storage.database import transaction

MAX_PERIOD = timedelta(days=3660)
MOST_COMMON = 5
SCHEMA = "techdeck-compliance-report-1"


class LastVerify(Protocol):
    """Knows how the log's last verification ended."""

    def __call__(self) -> Mapping[str, Any] | None:
        """Return `verified_at` (ISO 8601), `ok`, `rows` and `findings` (how many); None: never verified."""


def check_period(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return the period in UTC.

    Raises:
        ValidationError: a time has no zone, the period is empty or reversed, or longer than ten years.
    """
    for name, moment in (("start", start), ("end", end)):
        if moment.tzinfo is None:
            raise ValidationError(
                f"a report's {name} needs a time zone, such as 2026-01-31T00:00:00Z", field=name
            )
    if start >= end:
        raise ValidationError(
            f"a report's period must end after it starts; {end.isoformat()} is not after {start.isoformat()}",
            field="end",
        )
    if end - start > MAX_PERIOD:
        raise ValidationError(f"a report covers at most {MAX_PERIOD.days} days; take less", field="start")
    return start.astimezone(UTC), end.astimezone(UTC)


def generate(
    engine: Engine, start: datetime, end: datetime, *, now: datetime, last_verify: LastVerify | None = None
) -> dict[str, Any]:
    """Return the report of the period from `start` up to `end`, exclusive.

    An error is an event of the type error_handling; a violation is one whose code is HIPAA-related. Days are
    those of UTC. The comparison is with the period of the same length before.

    Raises:
        ValidationError: as `check_period`.
        ServiceUnavailableError: PostgreSQL is away.
    """
    start, end = check_period(start, end)
    before = start - (end - start)
    with transaction(engine) as connection:
        # All figures of one report are of one moment.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        current = tally(connection, start, end)
        previous = tally(connection, before, start)
        listed = violations(connection, start, end) if current.errors.hipaa else []
        found = incidents(connection, start, end, now)
    verified = last_verify() if last_verify else None
    errors = current.errors
    return {
        "schema": SCHEMA,
        "report_id": str(uuid.uuid4()),
        "report_period": {"start_date": start.isoformat(), "end_date": end.isoformat()},
        "generated_at": now.isoformat(),
        "total_errors": errors.total,
        "hipaa_violations": listed,
        "hipaa_violations_total": errors.hipaa,
        "hipaa_violations_limit": MAX_VIOLATIONS,
        "violation_severity_distribution": _by_severity(current),
        "most_common_violations": [
            [code, count.hipaa]
            for code, count in sorted(current.codes.items(), key=lambda item: (-item[1].hipaa, item[0]))
            if count.hipaa
        ][:MOST_COMMON],
        "remediation_actions": remediation_actions(current),
        "errors_by_code": _plain(current.codes),
        "errors_by_service": _plain(current.services),
        "trend": [{"date": day, **_figures(count)} for day, count in current.days.items()],
        "events_by_type": dict(sorted(current.event_types.items())),
        "incidents": found,
        "previous_period": _comparison(previous, before, start, errors),
        "last_verify": None if verified is None else dict(verified),
        "controls": control_mapping(current, found, verified),
    }


def _by_severity(tally: Tally) -> dict[str, int]:
    worst_first = sorted(Severity, key=lambda severity: -severity.rank)
    known = {severity.value: tally.severities.get(severity.value, Count()).hipaa for severity in worst_first}
    return {name: number for name, number in known.items() if number}


def _comparison(previous: Tally, start: datetime, end: datetime, current: Count) -> dict[str, Any]:
    errors = previous.errors
    return {
        "start_date": start.isoformat(),
        "end_date": end.isoformat(),
        **_figures(errors),
        "errors_change_percent": _change(errors.total, current.total),
        "hipaa_change_percent": _change(errors.hipaa, current.hipaa),
    }


def _change(before: int, now: int) -> float | None:
    """Return the change in percent; None where there was nothing to compare with."""
    return round((now - before) / before * 100, 1) if before else None


def _figures(count: Count) -> dict[str, int]:
    return {"errors": count.total, "hipaa_related": count.hipaa}


def _plain(counts: Mapping[str, Count]) -> dict[str, dict[str, int]]:
    return {name: _figures(count) for name, count in counts.items()}
