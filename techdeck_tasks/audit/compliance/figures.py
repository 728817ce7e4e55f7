"""The figures of a period, counted by PostgreSQL from clear columns: no key is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

MAX_VIOLATIONS = 1000
"""So many HIPAA-related errors a report lists; it counts all."""

MAX_NAMES = 50
"""So many services a report names; the rest is one figure."""

# Counted once by everything that is asked for, then summed along each side: one pass over the rows.
_TALLY = text("""
    WITH tally AS MATERIALIZED (
        SELECT date_trunc('day', occurred_at, 'UTC') AS day, event_type, error_code, severity, service,
            hipaa_related, count(*) AS number
        FROM audit_event
        WHERE occurred_at >= :start AND occurred_at < :end
        GROUP BY 1, 2, 3, 4, 5, 6
    ), errors AS (
        SELECT * FROM tally WHERE event_type = 'error_handling'
    ), sides AS (
        SELECT 'event_type' AS side, event_type AS name, sum(number) AS total, 0 AS hipaa
        FROM tally GROUP BY event_type
        UNION ALL
        SELECT 'day', to_char(day AT TIME ZONE 'UTC', 'YYYY-MM-DD'), sum(number),
            coalesce(sum(number) FILTER (WHERE hipaa_related), 0)
        FROM errors GROUP BY day
        UNION ALL
        SELECT 'error_code', coalesce(error_code, 'unknown'), sum(number),
            coalesce(sum(number) FILTER (WHERE hipaa_related), 0)
        FROM errors GROUP BY error_code
        UNION ALL
        SELECT 'severity', severity, sum(number), coalesce(sum(number) FILTER (WHERE hipaa_related), 0)
        FROM errors GROUP BY severity
        UNION ALL
        (SELECT 'service', service, sum(number), coalesce(sum(number) FILTER (WHERE hipaa_related), 0)
        FROM errors GROUP BY service ORDER BY 3 DESC, 2 LIMIT :names)
    )
    SELECT side, name, CAST(total AS bigint) AS total, CAST(hipaa AS bigint) AS hipaa FROM sides
""")

_VIOLATIONS = text("""
    SELECT event_id, occurred_at, error_id, error_code, severity, service, operation, pipeline_id, stage,
        outcome, hipaa_notify
    FROM audit_event
    WHERE occurred_at >= :start AND occurred_at < :end AND hipaa_related AND event_type = 'error_handling'
    ORDER BY occurred_at, event_id LIMIT :limit
""")

_INCIDENTS = text("""
    SELECT CAST(incident_id AS text) AS incident_id, error_id, error_code, severity, service, discovered_at,
        notification_deadline, state, assignee, secured, notification_sent_at
    FROM security_incident
    WHERE discovered_at >= :start AND discovered_at < :end
    ORDER BY discovered_at, incident_id LIMIT :limit
""")

_INCIDENT_COUNTS = text("""
    SELECT count(*) FILTER (WHERE discovered_at >= :start AND discovered_at < :end) AS discovered,
        count(*) FILTER (WHERE state IN ('open', 'investigating')) AS unresolved,
        count(*) FILTER (WHERE state IN ('open', 'investigating') AND notification_deadline < :now) AS overdue
    FROM security_incident
""")


@dataclass(frozen=True, slots=True)
class Count:
    """How many errors, and how many of them are HIPAA-related."""

    total: int = 0
    hipaa: int = 0


_NONE = Count()


@dataclass(frozen=True, slots=True)
class Tally:
    """The errors of a period along each side; `event_types` counts every kind of event."""

    event_types: Mapping[str, int] = field(default_factory=dict)
    days: Mapping[str, Count] = field(default_factory=dict)
    codes: Mapping[str, Count] = field(default_factory=dict)
    severities: Mapping[str, Count] = field(default_factory=dict)
    services: Mapping[str, Count] = field(default_factory=dict)

    @property
    def errors(self) -> Count:
        """All of them."""
        counts = self.days.values()
        return Count(sum(count.total for count in counts), sum(count.hipaa for count in counts))


def tally(connection: Connection, start: datetime, end: datetime) -> Tally:
    """Count what happened from `start` up to `end`."""
    sides: dict[str, dict[str, Count]] = {}
    # Compiling the query would take longer than running it.
    connection.execute(text("SET LOCAL jit = off"))
    for row in connection.execute(_TALLY, {"start": start, "end": end, "names": MAX_NAMES}):
        sides.setdefault(row.side, {})[row.name] = Count(row.total, row.hipaa)
    return Tally(
        event_types={name: count.total for name, count in sides.get("event_type", {}).items()},
        days={day: sides.get("day", {}).get(day, _NONE) for day in _days(start, end)},
        codes=_largest_first(sides.get("error_code", {})),
        severities=sides.get("severity", {}),
        services=_largest_first(sides.get("service", {})),
    )


def violations(
    connection: Connection, start: datetime, end: datetime, limit: int = MAX_VIOLATIONS
) -> list[dict[str, Any]]:
    """Return the first HIPAA-related errors of a period, JSON-safe; nothing of them is sealed."""
    found = connection.execute(_VIOLATIONS, {"start": start, "end": end, "limit": limit})
    return [
        {
            "audit_id": str(row.event_id),
            "timestamp": row.occurred_at.isoformat(),
            "error_id": row.error_id,
            "error_code": row.error_code,
            "severity": row.severity,
            "service": row.service,
            "operation": row.operation,
            "pipeline_id": row.pipeline_id,
            "stage": row.stage,
            "outcome": row.outcome,
            "notification_required": row.hipaa_notify,
        }
        for row in found
    ]


def incidents(connection: Connection, start: datetime, end: datetime, now: datetime) -> dict[str, Any]:
    """Return the security incidents that were discovered in a period, and how many are unresolved by now."""
    facts = {"start": start, "end": end, "now": now}
    counts = connection.execute(_INCIDENT_COUNTS, facts).one()
    rows = connection.execute(_INCIDENTS, facts | {"limit": MAX_VIOLATIONS}).mappings()
    listed = [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        | {
            "overdue": row["state"] in {"open", "investigating"} and row["notification_deadline"] < now,
            "notification_sent": row["notification_sent_at"] is not None,
        }
        for row in rows
    ]
    return {
        "discovered": counts.discovered,
        "unresolved_now": counts.unresolved,
        "overdue_now": counts.overdue,
        "listed": listed,
    }


def _days(start: datetime, end: datetime) -> list[str]:
    first, last = start.date(), (end - timedelta(microseconds=1)).date()
    return [_day(first, number) for number in range((last - first).days + 1)]


def _day(first: date, number: int) -> str:
    return (first + timedelta(days=number)).isoformat()


def _largest_first(counts: Mapping[str, Count]) -> dict[str, Count]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1].total, item[0])))
