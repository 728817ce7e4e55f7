"""Evaluations on real PostgreSQL: what fires, who is told, and what is on record."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from techdeck_tasks.alerts.channels import Channels
from techdeck_tasks.alerts.outbox import MAX_ATTEMPTS
from techdeck_tasks.alerts.state import AlertState, Policy
from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.audit.incidents.incident import Incident
from techdeck_tasks.errors import ServiceUnavailableError, ValidationError
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database

HOUR = timedelta(hours=1)


def test_an_alert_is_told_once_when_it_fires_and_once_when_it_is_over(ward: Any) -> None:
    for _ in range(5):
        ward.evaluate(dead_letters=3)
    assert ward.mail.read() == ["WARNING: dead_letters"]
    ward.evaluate(dead_letters=0)
    assert ward.mail.read() == []
    done = ward.evaluate()
    assert (done.firing, done.resolved) == (0, 1)
    assert ward.mail.read() == ["RESOLVED: dead_letters"]
    assert ward.trail.operations() == ["alert.fired", "alert.resolved"]
    (alert,) = ward.store.search(resolved=True)
    assert alert.notified_at is not None
    assert ward.store.search() == []


def test_an_alert_that_comes_back_within_the_hysteresis_is_the_same_one(ward: Any) -> None:
    for count in (1, 0, 1, 0, 1):
        ward.evaluate(dead_letters=count)
    assert ward.mail.read() == ["WARNING: dead_letters"]
    assert len(ward.store.search(resolved=True)) == 1


def test_what_must_hold_longer_is_pending_and_forgotten_where_it_does_not(ward: Any) -> None:
    ward.policy = Policy(fire_after=3)
    ward.evaluate(dead_letters=1)
    assert [alert.state for alert in ward.store.search()] == [AlertState.PENDING]
    ward.evaluate(dead_letters=0)
    assert ward.store.search(resolved=True) == []
    for _ in range(3):
        ward.evaluate(dead_letters=1)
    assert ward.mail.read() == ["WARNING: dead_letters"]


def test_two_evaluators_at_once_fire_once(ward: Any) -> None:
    ward.clock.elapsed += 60
    ward.situation = {"dead_letters": 1, "breakers": {"lab": "open"}}
    evaluators = [ward.evaluator() for _ in range(4)]
    barrier = threading.Barrier(len(evaluators), timeout=30)

    def run(evaluator: Any) -> bool:
        barrier.wait()
        evaluated: bool = evaluator.evaluate().evaluated
        return evaluated

    with ThreadPoolExecutor(len(evaluators)) as pool:
        assert sum(pool.map(run, evaluators)) == 1
    assert sorted(ward.mail.read()) == ["WARNING: breaker_open:lab", "WARNING: dead_letters"]
    assert ward.trail.operations() == ["alert.fired", "alert.fired"]


def test_a_second_beats_message_for_the_same_slot_does_not_count(ward: Any) -> None:
    ward.policy = Policy(fire_after=2)
    assert ward.evaluate(dead_letters=1).evaluated
    assert not ward.evaluate(after=timedelta(seconds=20)).evaluated
    assert [alert.state for alert in ward.store.search()] == [AlertState.PENDING]


def test_what_cannot_be_found_out_neither_fires_nor_ends(ward: Any) -> None:
    ward.evaluate(dead_letters=1)
    assert ward.mail.read() == ["WARNING: dead_letters"]
    for _ in range(4):
        ward.evaluate(dead_letters=ServiceUnavailableError("Redis is away", service_name="redis"))
    assert ward.mail.read() == ["WARNING: unknown:dead_letters"]
    assert {alert.key for alert in ward.store.search()} == {"dead_letters", "unknown:dead_letters"}


def test_a_reminder_comes_at_its_time_and_not_after_an_acknowledgement(ward: Any) -> None:
    ward.channels = Channels((ward.mail,))
    ward.evaluate(dead_letters=1)
    ward.evaluate(after=4 * HOUR)
    ward.evaluate(after=HOUR)
    assert ward.mail.read() == ["WARNING: dead_letters", "STILL WARNING: dead_letters"]
    (alert,) = ward.store.search()
    taken = ward.store.acknowledge(str(alert.alert_id)[:8], by="amira", reason="looking")
    assert taken.acknowledged_by == "amira"
    ward.evaluate(after=9 * HOUR)
    assert ward.mail.read() == []
    assert ward.trail.operations() == ["alert.fired", "alerts.acknowledge"]
    with pytest.raises(ValidationError, match="acknowledged by amira"):
        ward.store.acknowledge(str(alert.alert_id), by="bo", reason="me too")


def test_what_nobody_acknowledges_is_escalated_once_and_its_end_told_to_those_too(ward: Any) -> None:
    ward.evaluate(dead_letters=1)
    ward.evaluate(after=timedelta(minutes=29))
    assert ward.pager.read() == []
    ward.evaluate()
    ward.evaluate()
    assert ward.pager.read() == ["NOBODY REACTED, WARNING: dead_letters"]
    ward.evaluate(dead_letters=0)
    ward.evaluate()
    assert ward.pager.read() == ["RESOLVED: dead_letters"]
    assert ward.trail.operations() == ["alert.fired", "alert.escalated", "alert.resolved"]


def test_an_acknowledged_alert_is_not_escalated(ward: Any) -> None:
    ward.evaluate(dead_letters=1)
    (alert,) = ward.store.search()
    ward.store.acknowledge(str(alert.alert_id), by="amira", reason="looking")
    ward.evaluate(after=3 * HOUR)
    assert ward.pager.read() == []


def test_a_channel_that_is_down_gets_it_when_it_is_up_again(ward: Any) -> None:
    ward.mail.problem = "not accepted (failure)"
    done = ward.evaluate(dead_letters=1)
    assert (done.delivered, done.failed) == (0, 1)
    (alert,) = ward.store.search()
    assert alert.notified_at is None
    ward.evaluate(after=timedelta(seconds=50))
    ward.mail.problem = None
    ward.evaluate(after=timedelta(minutes=2))
    assert ward.mail.read() == ["WARNING: dead_letters"]
    assert ward.store.get(str(alert.alert_id)).notified_at is not None
    assert ward.trail.operations() == ["alert.fired", "alert.undelivered"]
    (sent,) = ward.store.deliveries(alert)
    assert (sent["state"], sent["attempts"], sent["problem"]) == ("delivered", 2, None)


def test_a_dead_channel_costs_one_attempt_an_evaluation_and_an_end(ward: Any) -> None:
    ward.channels = Channels((ward.mail, ward.pager))
    ward.mail.problem = "not accepted (timeout)"
    done = ward.evaluate(dead_letters=1, interventions=1, breakers={"lab": "open"})
    assert (done.delivered, done.failed) == (3, 1)
    ward.policy = Policy(repeat_after=1000 * HOUR)
    for _ in range(4 * MAX_ATTEMPTS):
        ward.evaluate(after=HOUR)
    states = {sent["state"] for alert in ward.store.search() for sent in ward.store.deliveries(alert)}
    assert states == {"delivered", "failed"}
    assert ward.trail.operations().count("alert.undelivered") == 3 * MAX_ATTEMPTS


def test_a_channel_that_is_taken_from_the_settings_is_given_up(ward: Any) -> None:
    ward.mail.problem = "not accepted (failure)"
    ward.evaluate(dead_letters=1)
    ward.channels = Channels()
    ward.evaluate(after=HOUR)
    (alert,) = ward.store.search()
    (sent,) = ward.store.deliveries(alert)
    assert sent["state"] == "failed"


def test_the_end_takes_the_place_of_a_notice_that_still_waits(ward: Any) -> None:
    ward.mail.problem = "not accepted (failure)"
    ward.evaluate(dead_letters=1)
    ward.evaluate(dead_letters=0)
    ward.mail.problem = None
    ward.evaluate(after=HOUR)
    assert ward.mail.read()[-1] == "RESOLVED: dead_letters"
    ward.evaluate(after=5 * HOUR)
    assert ward.mail.read() == []


def test_who_silenced_an_alert_is_told_when_the_silence_ends_and_it_still_fires(ward: Any) -> None:
    ward.store.silence(
        alert_type="breaker_open", subject="lab", period=2 * HOUR, by="amira", reason="planned work"
    )
    ward.evaluate(breakers={"lab": "open", "pharmacy": "open"})
    assert ward.mail.read() == ["WARNING: breaker_open:pharmacy"]
    ward.evaluate(after=2 * HOUR)
    assert "WARNING: breaker_open:lab" in ward.mail.read()
    assert ward.trail.operations()[0] == "alerts.silence"


def test_a_silence_can_be_ended_and_must_match_something(ward: Any) -> None:
    with pytest.raises(ValidationError, match="type or a subject"):
        ward.store.silence(alert_type=None, subject=None, period=HOUR, by="amira", reason="quiet")
    made = ward.store.silence(
        alert_type="dead_letters", subject=None, period=HOUR, by="amira", reason="replaying"
    )
    ward.evaluate(dead_letters=1)
    assert ward.mail.read() == []
    ward.store.unsilence(str(made.silence_id)[:8], by="amira", reason="done")
    assert ward.store.silences() == []
    with pytest.raises(ValidationError, match="over already"):
        ward.store.unsilence(str(made.silence_id), by="amira", reason="again")
    ward.evaluate()
    assert ward.mail.read() == ["WARNING: dead_letters"]


def incident(incident_id: str) -> Incident:
    moment = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    unknown: dict[str, Any] = dict.fromkeys(Incident.__dataclass_fields__)
    known = {"incident_id": incident_id, "error_code": "AUTH_ERROR", "service": "web", "operation": "login"}
    return Incident(
        **unknown | known | {"discovered_at": moment, "notification_deadline": moment + timedelta(days=60)}
    )


def test_new_incidents_are_told_of_again_and_noted_only_when_a_channel_took_them(ward: Any) -> None:
    ward.evaluate(unnotified_incidents=(incident("a"), incident("b")))
    assert ward.notified == [("security_incident", ("a", "b"), "primary-1 (mailto)")]
    ward.evaluate()
    assert len(ward.mail.read()) == 1
    ward.mail.problem = "not accepted (failure)"
    ward.evaluate(unnotified_incidents=(incident("c"),))
    assert len(ward.notified) == 1
    ward.mail.problem = None
    ward.evaluate(after=timedelta(minutes=5))
    assert ward.notified[1:] == [("security_incident", ("c",), "primary-1 (mailto)")]
    ward.mail.read()
    ward.evaluate(unnotified_incidents=())
    ward.evaluate()
    assert ward.mail.read() == [], "nobody may read that an incident is over"


def test_a_notice_whose_acceptance_cannot_be_noted_is_sent_again(ward: Any) -> None:
    ward.refuse_notified = AuditUnavailableError("no disk")
    ward.evaluate(unnotified_incidents=(incident("a"),))
    assert ward.notified == []
    ward.refuse_notified = None
    ward.evaluate(after=timedelta(minutes=5))
    assert ward.notified == [("security_incident", ("a",), "primary-1 (mailto)")]


def test_an_alert_is_told_even_where_the_audit_log_is_away_but_no_decision_is_taken(ward: Any) -> None:
    ward.trail.away = True
    ward.evaluate(dead_letters=1)
    assert ward.mail.read() == ["WARNING: dead_letters"]
    (alert,) = ward.store.search()
    with pytest.raises(AuditUnavailableError):
        ward.store.acknowledge(str(alert.alert_id), by="amira", reason="looking")
    assert ward.store.get(str(alert.alert_id)).acknowledged_by is None


def test_old_alerts_are_forgotten(ward: Any) -> None:
    ward.evaluate(dead_letters=1)
    ward.evaluate(dead_letters=0)
    ward.evaluate()
    assert len(ward.store.search(resolved=True)) == 1
    ward.evaluate(after=timedelta(days=91))
    ward.evaluate()
    assert ward.store.search(resolved=True) == []


def test_alerts_are_watched_since_the_first_evaluation(ward: Any) -> None:
    assert ward.store.watched_since() is None
    ward.evaluate()
    first = ward.clock.now()
    ward.evaluate()
    assert ward.store.watched_since() == first


def test_without_the_database_an_evaluation_says_so(ward: Any, own_database: Engine) -> None:
    ward.engine = connect_database(load_settings(database_url="postgresql+psycopg://x:y@127.0.0.1:1/log"))
    with pytest.raises(ServiceUnavailableError):
        ward.evaluate(dead_letters=1)
    assert ward.mail.read() == []
    ward.engine.dispose()
