"""Whether the security incidents stand as the log tells: discovered, notified, decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.incidents.incident import NOTIFICATION_PERIOD
from techdeck_tasks.audit.incidents.store import INCIDENT_NOTIFIED, decision_digest, notice_digest
from techdeck_tasks.audit.month import bounds_of
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.tombstone import Tombstone

_INCIDENTS = "security_incident"

# A time that Python does not know is none that was recorded.
_THERE = text("""
    SELECT incident_id, state, assignee, changed_by, note, secured, notification_channel,
        CASE WHEN changed_at BETWEEN '0001-01-02' AND '9999-12-30' THEN changed_at END AS changed_at,
        CASE WHEN notification_sent_at BETWEEN '0001-01-02' AND '9999-12-30'
            THEN notification_sent_at END AS notification_sent_at,
        changed_at BETWEEN now() - CAST(:settling AS interval) AND now() AS just_changed,
        notification_sent_at BETWEEN now() - CAST(:settling AS interval) AND now() AS just_notified
    FROM security_incident ORDER BY incident_id
""")
# A record may be written before what it tells of is committed.
_TOLD_OF = text("""
    SELECT operation = :notified AS of_notice, outcome FROM audit_event
    WHERE event_type = :event_type AND service = 'incidents'
    AND recorded_at < now() - interval '1 minute' ORDER BY occurred_at, event_id
""")
# What the table repeats of the event that told of the incident.
_DIFFERENT = text("""
    SELECT incident_id FROM security_incident i JOIN audit_event e ON e.event_id = i.incident_id
    WHERE (i.discovered_at, i.notification_deadline, i.severity, i.service, i.operation, i.error_id,
            i.error_code, i.pipeline_id, i.task_id)
        IS DISTINCT FROM (e.occurred_at, e.occurred_at + CAST(:period AS interval), e.severity, e.service,
            e.operation, e.error_id, e.error_code, e.pipeline_id, e.task_id)
    ORDER BY incident_id
""")


def check_incidents(
    connection: Connection, tombstones: Sequence[Tombstone], settling: timedelta
) -> Iterator[Finding]:
    """Yield the incidents that were changed past the log. One that was removed is entered again, as open.

    Args:
        connection: the snapshot to look at.
        tombstones: the valid ones; what was done in a dropped month was recorded there.
        settling: a record may arrive so much later than what it tells of.
    """
    dropped = [bounds_of(tombstone.month) for tombstone in tombstones]

    def recorded_elsewhere(at: datetime | None) -> bool:
        return at is not None and any(begin <= at < end for begin, end in dropped)

    facts = {"event_type": EventType.OPERATOR_ACTION.value, "notified": INCIDENT_NOTIFIED}
    decisions: dict[str, str] = {}
    notices = set()
    for told in connection.execute(_TOLD_OF, facts):
        incident_id, _, digest = (told.outcome or "").partition(" ")
        if told.of_notice:
            notices.add((incident_id, digest))
        else:
            decisions[incident_id] = digest
    for row in connection.execute(_DIFFERENT, {"period": NOTIFICATION_PERIOD}):
        yield _finding(f"incident {row.incident_id} is not what the event that told of it says")
    for row in connection.execute(_THERE, {"settling": settling}):
        key = str(row.incident_id)
        decided = None if row.changed_by is None else decision_digest(row)
        known = decided == decisions.get(key) or row.just_changed or recorded_elsewhere(row.changed_at)
        if not known:
            yield _finding(f"incident {key} is {row.state}; the log tells of another decision")
        unknown = row.notification_channel is not None and (key, notice_digest(row)) not in notices
        if unknown and not row.just_notified and not recorded_elsewhere(row.notification_sent_at):
            yield _finding(f"incident {key} counts as notified, and the log does not tell of that")


def _finding(detail: str) -> Finding:
    return Finding(Verdict.INCIDENT_CHANGED, _INCIDENTS, detail)
