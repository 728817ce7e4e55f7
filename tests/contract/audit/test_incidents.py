"""Security incidents: from the log into their table, and through an investigation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType, new_event_id
from techdeck_tasks.audit.incidents.incident import Incident, IncidentState
from techdeck_tasks.audit.incidents.store import IncidentStore
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.testing.clock import FakeClock

NOW = datetime.now(UTC).replace(microsecond=0)
Report = Callable[..., str]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(engine: Engine, trail: Any, clock: FakeClock) -> IncidentStore:
    return IncidentStore(engine, trail, clock, 2190)


@pytest.fixture
def report(writer: AuditWriter, sealer: Sealer, new_event: Callable[..., AuditEvent]) -> Report:
    """Writes an incident into the log, so many days back, and returns its id."""

    def write(error_id: str | None = None, days_ago: float = 0, **values: Any) -> str:
        moment = NOW - timedelta(days=days_ago)
        event_id = new_event_id(int(moment.timestamp() * 1000) * 10**6)
        facts = {"event_type": EventType.SECURITY_INCIDENT, "error_code": "AUTH_ERROR", "severity": "medium"}
        event = new_event(event_id=event_id, error_id=error_id, **(facts | values))
        assert writer.write([sealer.seal(event)]).written == 1
        return str(event_id)

    return write


def test_an_incident_of_the_log_is_entered_once_with_its_deadline(
    store: IncidentStore, report: Report
) -> None:
    incident_id = report("e-1", severity="high", pipeline_id="run-1")
    report("e-2", event_type=EventType.ERROR_HANDLING)
    assert [store.catch_up(), store.catch_up()] == [1, 0]
    (incident,) = store.search()
    assert (incident.incident_id, incident.error_id, incident.severity) == (incident_id, "e-1", "high")
    assert (incident.service, incident.pipeline_id, incident.state) == ("lab", "run-1", IncidentState.OPEN)
    assert incident.notification_deadline - incident.discovered_at == timedelta(days=60)
    assert (incident.notification_sent, incident.secured) == (False, None)


def test_an_error_that_is_reported_twice_is_one_incident(store: IncidentStore, report: Report) -> None:
    first = report("e-1", days_ago=1)
    report("e-1")
    assert [store.catch_up(), store.catch_up()] == [1, 0]
    assert [incident.incident_id for incident in store.search()] == [first]


def test_incidents_without_an_error_are_each_their_own(store: IncidentStore, report: Report) -> None:
    report(), report()
    assert store.catch_up() == 2


def test_what_reaches_the_log_late_is_not_passed_over(store: IncidentStore, report: Report) -> None:
    report("e-1")
    store.catch_up()
    report("e-2", days_ago=30)
    assert store.catch_up() == 1


def test_several_workers_catching_up_at_once_enter_each_incident_once(
    store: IncidentStore, report: Report
) -> None:
    for number in range(20):
        report(f"e-{number % 10}")
    with ThreadPoolExecutor(4) as pool:
        entered = list(pool.map(lambda _: store.catch_up(), range(8)))
    assert sum(entered) == 10
    assert len(store.search()) == 10


@pytest.fixture
def incident(store: IncidentStore, report: Report) -> Incident:
    report("e-1")
    store.catch_up()
    return store.search()[0]


def test_an_investigation_goes_from_open_to_resolved_and_each_step_is_on_record(
    store: IncidentStore, incident: Incident, trail: Any, clock: FakeClock
) -> None:
    clock.elapsed = 60
    assigned = store.assign(incident.incident_id[:18], assignee="jane", by="boss", note="your turf")
    assert (assigned.state, assigned.assignee, assigned.changed_by) == (
        IncidentState.INVESTIGATING,
        "jane",
        "boss",
    )
    assert assigned.changed_at == clock.now()
    again = store.assign(incident.incident_id, assignee="joe", by="boss", note="jane is away")
    assert again.assignee == "joe"
    resolved = store.resolve(
        incident.incident_id, secured=True, by="joe", note="laptop of jroe@example.org was encrypted"
    )
    assert (resolved.state, resolved.secured, resolved.assignee) == (IncidentState.RESOLVED, True, "joe")
    assert "jroe@" not in str(resolved.note)
    assert store.get(incident.incident_id) == resolved
    assert [(event.operation, event.user_id) for event in trail.events] == [
        ("incident.investigating", "boss"),
        ("incident.investigating", "boss"),
        ("incident.resolved", "joe"),
    ]
    assert {event.error_id for event in trail.events} == {"e-1"}
    assert trail.events[-1].document["from"] == "investigating"


@pytest.mark.parametrize("end", ["resolve", "dismiss"])
def test_what_is_decided_stays(end: str, store: IncidentStore, incident: Incident, trail: Any) -> None:
    key = incident.incident_id
    if end == "resolve":
        store.resolve(key, secured=False, by="joe", note="told them")
    else:
        store.dismiss(key, by="joe", note="a drill")
    with pytest.raises(ValidationError, match="by joe; that stays"):
        store.dismiss(key, by="eve", note="forget it")
    with pytest.raises(ValidationError, match="that stays"):
        store.assign(key, assignee="eve", by="eve", note="mine")
    assert len(trail.events) == 1


def test_a_change_that_cannot_be_recorded_is_not_made(
    store: IncidentStore, incident: Incident, trail: Any
) -> None:
    trail.away = True
    with pytest.raises(AuditUnavailableError):
        store.dismiss(incident.incident_id, by="joe", note="x")
    assert store.get(incident.incident_id) == incident


@pytest.mark.parametrize("incident_id", ["nothing", "%", "_" * 36, "019a0000-0000-7000-8000-000000000000"])
def test_an_incident_that_is_not_there_is_named(
    incident_id: str, store: IncidentStore, incident: Incident
) -> None:
    with pytest.raises(ValidationError, match="there is no incident"):
        store.dismiss(incident_id, by="joe", note="x")


def test_a_beginning_that_several_share_is_refused(store: IncidentStore, report: Report) -> None:
    report("e-1"), report("e-2")
    store.catch_up()
    with pytest.raises(ValidationError, match="several"):
        store.get("0")


def test_overdue_is_what_nobody_resolved_in_sixty_days(
    store: IncidentStore, report: Report, clock: FakeClock
) -> None:
    late, settled, fresh = report("late", days_ago=61), report("settled", days_ago=62), report("fresh")
    store.catch_up()
    store.dismiss(settled, by="joe", note="a drill")
    assert [incident.incident_id for incident in store.search(overdue=True)] == [late]
    assert store.get(late).to_dict(clock.now())["overdue"] is True
    assert store.get(settled).to_dict(clock.now())["overdue"] is False
    assert [incident.incident_id for incident in store.search(IncidentState.OPEN)] == [fresh, late]


def test_alerts_see_what_is_due_and_what_was_never_told(store: IncidentStore, report: Report) -> None:
    soon, later = report("soon", days_ago=58), report("later", days_ago=10)
    store.catch_up()
    assert [incident.incident_id for incident in store.due_within(timedelta(days=5))] == [soon]
    assert [incident.incident_id for incident in store.unnotified()] == [soon, later]


def test_a_notification_counts_once_and_is_on_record(
    store: IncidentStore, incident: Incident, trail: Any, clock: FakeClock
) -> None:
    told = [store.mark_notified(incident.incident_id, channel) for channel in ("email", "pager")]
    assert told == [True, False]
    noted = store.get(incident.incident_id)
    assert (noted.notification_sent_at, noted.notification_channel) == (clock.now(), "email")
    assert store.unnotified() == []
    assert [event.operation for event in trail.events] == ["incident.notified"]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_bounds_is_refused(limit: int, store: IncidentStore) -> None:
    with pytest.raises(ValidationError, match="1 to 1000"):
        store.search(limit=limit)
