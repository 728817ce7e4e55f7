"""The table of security incidents: filled from the audit log, changed by investigators."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, String, cast, select, text, update
from sqlalchemy.engine import Row

from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.audit.incidents.incident import NOTIFICATION_PERIOD, UNRESOLVED, Incident, IncidentState
from techdeck_tasks.audit.review_models import SecurityIncident
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.redaction import sanitize_message
from techdeck_tasks.storage.database import transaction

MAX_LISTED = 1000

INCIDENT_NOTIFIED = "incident.notified"
"""Operation on record. Its `outcome`, as that of each decision, is the incident's id and a SHA-256 over what
the table says since; in the clear, for verify."""

# From the log itself and not from a mark of what was seen: a row that commits late is found the next time.
# Of the reports of one error the first becomes the incident, also where two runs of this meet.
_CATCH_UP = text("""
    INSERT INTO security_incident (incident_id, error_id, error_code, severity, service, operation,
        pipeline_id, task_id, discovered_at, notification_deadline, state)
    SELECT event_id, error_id, error_code, severity, service, operation, pipeline_id, task_id,
        occurred_at, occurred_at + CAST(:period AS interval), 'open'
    FROM audit_event e
    WHERE event_type = 'security_incident'
        AND NOT EXISTS (SELECT FROM security_incident i WHERE i.incident_id = e.event_id)
    ORDER BY occurred_at, event_id
    ON CONFLICT DO NOTHING
""")

_COLUMNS = [getattr(SecurityIncident, field.name) for field in fields(Incident)]


class IncidentStore:
    """Finds and changes incidents.

    Args:
        engine: the database.
        trail: where each change is recorded before it is made.
        clock: the time of changes, and what is overdue.
        retention_days: how long the records of changes are kept.
    """

    def __init__(self, engine: Engine, trail: AuditTrail, clock: Clock, retention_days: int) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._retention_days = retention_days

    def catch_up(self) -> int:
        """Enter the incidents that are in the audit log and not in the table; return how many.

        To run it again, or twice at once, enters none twice.

        Raises:
            ServiceUnavailableError: PostgreSQL is away.
        """
        with transaction(self._engine) as connection:
            entered: int = connection.execute(_CATCH_UP, {"period": NOTIFICATION_PERIOD}).rowcount
        return entered

    def search(
        self,
        state: IncidentState | None = None,
        *,
        overdue: bool = False,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> list[Incident]:
        """Return the newest incidents, newest first.

        Args:
            state: only those in it.
            overdue: only unresolved ones whose deadline is over.
            limit: 1 to 1000.
            before: `discovered_at` and id of the incident that the page before ended with.

        Raises:
            ValidationError: `limit` is out of its bounds.
            ServiceUnavailableError: PostgreSQL is away.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValidationError(f"incidents are listed 1 to {MAX_LISTED} at a time", field="limit")
        wanted: list[ColumnElement[bool]] = []
        if state is not None:
            wanted.append(SecurityIncident.state == state)
        if overdue:
            wanted += [_UNRESOLVED, SecurityIncident.notification_deadline < self._clock.now()]
        if before is not None:
            moment, after = (
                SecurityIncident.discovered_at,
                SecurityIncident.incident_id > uuid.UUID(before[1]),
            )
            wanted += [moment <= before[0], (moment < before[0]) | after]
        newest_first = SecurityIncident.discovered_at.desc()
        return self._find(wanted, newest_first, limit)

    def get(self, incident_id: str) -> Incident:
        """Return the incident with that id, or whose id alone begins so.

        Raises:
            ValidationError: there is none, or several.
            ServiceUnavailableError: PostgreSQL is away.
        """
        begins = cast(SecurityIncident.incident_id, String).startswith(incident_id.lower(), autoescape=True)
        found = self._find([begins], SecurityIncident.discovered_at, limit=2)
        if len(found) != 1:
            what = "there is no incident" if not found else "there are several incidents"
            raise ValidationError(
                f"{what} {incident_id!r}; 'techdeck incidents list' shows them", field="incident_id"
            )
        return found[0]

    # -- for alerts --------------------------------------------------------------------------------

    def unnotified(self, limit: int = MAX_LISTED) -> list[Incident]:
        """Return the incidents of which no channel has accepted a notification, oldest first."""
        never = SecurityIncident.notification_sent_at.is_(None)
        return self._find([never], SecurityIncident.discovered_at, limit)

    def due_within(self, period: timedelta, limit: int = MAX_LISTED) -> list[Incident]:
        """Return unresolved incidents whose deadline is at most `period` away or over, most urgent first."""
        due = SecurityIncident.notification_deadline <= self._clock.now() + period
        return self._find([_UNRESOLVED, due], SecurityIncident.notification_deadline, limit)

    def mark_notified(self, incident_id: str, channel: str) -> bool:
        """Note that `channel` accepted the notification; tell whether it is the first one to.

        Args:
            incident_id: the whole id.
            channel: its name, such as "email"; never its URL, which may hold a password.

        Raises:
            ValidationError: there is no such incident.
            AuditUnavailableError: it cannot be recorded; nothing was changed.
            ServiceUnavailableError: PostgreSQL is away.
        """
        now = self._clock.now()
        with transaction(self._engine) as connection:
            incident = self._lock(connection, incident_id)
            if incident.notification_sent:
                return False
            values = {"notification_sent_at": now, "notification_channel": sanitize_message(channel)}
            changed = _change(connection, incident, values)
            # Before the commit and not before the statement: what the database refuses is not on record.
            self._record(INCIDENT_NOTIFIED, channel, incident, notice_digest(changed), channel=channel)
        return True

    # -- investigation -----------------------------------------------------------------------------

    def assign(self, incident_id: str, *, assignee: str, by: str, note: str) -> Incident:
        """Give an unresolved incident to a person to investigate.

        Raises:
            ValidationError: there is no such incident, or it is resolved or dismissed.
            AuditUnavailableError: it cannot be recorded; nothing was changed.
            ServiceUnavailableError: PostgreSQL is away.
        """
        return self._move(incident_id, IncidentState.INVESTIGATING, by, note, assignee=assignee)

    def resolve(self, incident_id: str, *, secured: bool, by: str, note: str) -> Incident:
        """End the investigation for good.

        Args:
            incident_id: the id, or how it alone begins.
            secured: whether the information was unreadable to others, 45 CFR 164.402: if not, and it was a
                breach, the individuals must be told until the deadline.
            by: who decides.
            note: what was found and done; kept sealed as it is, and redacted in the table.

        Raises:
            ValidationError, AuditUnavailableError, ServiceUnavailableError: as `assign`.
        """
        return self._move(incident_id, IncidentState.RESOLVED, by, note, secured=secured)

    def dismiss(self, incident_id: str, *, by: str, note: str) -> Incident:
        """End the investigation for good: it was no incident.

        Raises:
            ValidationError, AuditUnavailableError, ServiceUnavailableError: as `assign`.
        """
        return self._move(incident_id, IncidentState.DISMISSED, by, note)

    def _move(self, incident_id: str, target: IncidentState, by: str, note: str, **values: Any) -> Incident:
        whole_id = self.get(incident_id).incident_id
        with transaction(self._engine) as connection:
            # Locked: of two who decide at once the second one sees what the first one decided.
            incident = self._lock(connection, whole_id)
            if not incident.unresolved:
                raise ValidationError(
                    f"incident {whole_id} was {incident.state} by {incident.changed_by}; that stays",
                    field="incident_id",
                )
            change = {
                "state": target,
                "changed_at": self._clock.now(),
                "changed_by": by,
                "note": sanitize_message(note),
            }
            changed = _change(connection, incident, {**change, **values})
            digest = decision_digest(changed)
            self._record(f"incident.{target}", by, incident, digest, note=note, **values)
            return changed

    def _lock(self, connection: Connection, incident_id: str) -> Incident:
        found = None
        try:
            key = SecurityIncident.incident_id == uuid.UUID(incident_id)
        except ValueError:
            pass
        else:
            found = connection.execute(select(*_COLUMNS).where(key).with_for_update()).one_or_none()
        if found is None:
            raise ValidationError(f"there is no incident {incident_id!r}", field="incident_id")
        return _incident(found)

    def _find(self, wanted: list[ColumnElement[bool]], order: Any, limit: int) -> list[Incident]:
        statement = select(*_COLUMNS).where(*wanted).order_by(order, SecurityIncident.incident_id)
        with transaction(self._engine) as connection:
            return [_incident(row) for row in connection.execute(statement.limit(limit))]

    def _record(self, operation: str, by: str, incident: Incident, digest: str, **facts: Any) -> None:
        self._trail.record(
            operator_action(
                "incidents",
                operation,
                by,
                {"incident_id": incident.incident_id, "from": incident.state, **facts},
                severity=Severity.MEDIUM,
                retention_days=self._retention_days,
                outcome=f"{incident.incident_id} {digest}",
                error_id=incident.error_id,
                error_code=incident.error_code,
            )
        )


def decision_digest(incident: Incident | Row[Any]) -> str:
    """Return the SHA-256 over the last decision about an incident, in hex."""
    decided = (incident.state, incident.assignee, incident.changed_by, incident.note, incident.secured)
    return _digest(incident.incident_id, incident.changed_at, *decided)


def notice_digest(incident: Incident | Row[Any]) -> str:
    """Return the SHA-256 over which channel took an incident's notification when, in hex."""
    return _digest(incident.incident_id, incident.notification_sent_at, incident.notification_channel)


def _digest(incident_id: object, at: datetime | None, *said: object) -> str:
    moment = None if at is None else at.astimezone(UTC).isoformat()
    return hashlib.sha256(json.dumps([str(incident_id), moment, *said]).encode()).hexdigest()


_UNRESOLVED = SecurityIncident.state.in_(UNRESOLVED)


def _change(connection: Connection, incident: Incident, values: dict[str, Any]) -> Incident:
    key = SecurityIncident.incident_id == uuid.UUID(incident.incident_id)
    changed = connection.execute(update(SecurityIncident).where(key).values(values).returning(*_COLUMNS))
    return _incident(changed.one())


def _incident(row: Row[Any]) -> Incident:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["incident_id"] = str(values["incident_id"])
    values["state"] = IncidentState(values["state"])
    return Incident(**values)
