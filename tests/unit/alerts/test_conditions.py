from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from techdeck_tasks.alerts.condition import Condition, Finding, Severity, condition, judge, load_conditions
from techdeck_tasks.alerts.conditions import VERIFY_EVERY
from techdeck_tasks.alerts.situation import ATTRIBUTES, Situation, gather
from techdeck_tasks.audit.incidents.incident import Incident, IncidentState
from techdeck_tasks.audit.proof.verify_run import Verification
from techdeck_tasks.audit.writing.backlog import AuditBacklog
from techdeck_tasks.errors import ServiceUnavailableError, ValidationError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

CALM = AuditBacklog(
    stream_entries=3,
    pending_entries=0,
    oldest_age_s=0.5,
    consumers=1,
    dead_consumers=0,
    quarantined_entries=0,
    quarantined_total=0,
    spool_files=0,
    spool_bytes=0,
    damaged_spool_files=0,
)


def backlog(**values: Any) -> AuditBacklog:
    return AuditBacklog(**{name: getattr(CALM, name) for name in CALM.__dataclass_fields__} | values)


def verification(*, ok: bool = True, ago: timedelta = timedelta(hours=1)) -> Verification:
    return Verification(NOW - ago, NOW - ago, 500, 2, 9, ok, 0 if ok else 4, ())


def incident(incident_id: str, error_code: str | None = "AUTH_ERROR") -> Incident:
    return Incident(
        incident_id=incident_id,
        error_id="e",
        error_code=error_code,
        severity="medium",
        service="audit",
        operation="verify",
        pipeline_id=None,
        task_id=None,
        discovered_at=NOW - timedelta(minutes=5),
        notification_deadline=NOW + timedelta(days=3),
        state=IncidentState.OPEN,
        assignee=None,
        changed_at=None,
        changed_by=None,
        note=None,
        secured=None,
        notification_sent_at=None,
        notification_channel=None,
    )


def found(**facts: Any) -> dict[str, Finding]:
    return dict(judge(load_conditions(), Situation(now=NOW, **facts)).findings)


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    assert (
        found(backlog=CALM, verification=verification(), breakers={"lab": "closed", "x": "half-open"}) == {}
    )


def test_the_specifications_conditions_keep_their_type_text_value_and_threshold() -> None:
    spec: Mapping[str, Any] = MappingProxyType(
        {
            "alert_type": "high_service_error_rate",
            "severity": "warning",
            "message": "lab error rate is 12.00%, exceeding threshold of 5.0%",
            "service": "lab",
            "current_value": 12.0,
            "threshold": 5.0,
        }
    )
    (finding,) = found(error_conditions=(spec,)).values()
    assert finding == Finding(
        "high_service_error_rate", Severity.WARNING, spec["message"], subject="lab", value=12.0, threshold=5.0
    )


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"breakers": {"lab": "open"}}, "breaker_open:lab"),
        ({"breakers": {"lab": "forced-open"}}, "breaker_open:lab"),
        ({"backlog": backlog(oldest_age_s=900.0)}, "audit_backlog"),
        ({"backlog": backlog(spool_files=1)}, "audit_spool"),
        ({"backlog": backlog(damaged_spool_files=1)}, "audit_spool"),
        ({"backlog": backlog(quarantined_entries=1)}, "audit_quarantine"),
        ({"verification": verification(ok=False)}, "audit_verify_failed"),
        ({"verification": verification(ago=VERIFY_EVERY * 2)}, "audit_verify_overdue"),
        ({"watched_since": NOW - VERIFY_EVERY * 2}, "audit_verify_overdue"),
        ({"overdue_months": (date(2018, 3, 1),)}, "retention_overdue"),
        ({"unnotified_incidents": (incident("a"),)}, "security_incident:AUTH_ERROR"),
        ({"unnotified_incidents": (incident("a", None),)}, "security_incident:audit/verify"),
        ({"due_incidents": (incident("a"),)}, "incident_deadline"),
        ({"dead_letters": 2}, "dead_letters"),
        ({"interventions": 1}, "interventions"),
        ({"quarantined_messages": 1}, "quarantine"),
        ({"unknown": frozenset({"breakers"})}, "unknown:breakers"),
    ],
)
def test_what_is_wrong_is_found_under_a_stable_key(facts: dict[str, Any], key: str) -> None:
    assert list(found(**facts)) == [key]


def test_a_hundred_incidents_of_one_code_are_one_finding_that_names_each() -> None:
    (finding,) = found(unnotified_incidents=tuple(incident(str(n)) for n in range(100))).values()
    assert (finding.value, len(finding.items)) == (100, 100)


def test_what_cannot_be_found_out_leaves_its_conditions_undecided() -> None:
    def away() -> int:
        raise ServiceUnavailableError("Redis is away", service_name="redis")

    sources = dict.fromkeys(ATTRIBUTES - {"dead_letters", "verification", "backlog", "watched_since"}, dict)
    situation = gather({**sources, "dead_letters": away, "interventions": lambda: 1}, NOW)
    judgement = judge(load_conditions(), situation)
    assert "dead_letters" in judgement.undecided
    assert {"interventions", "unknown:dead_letters"} <= judgement.findings.keys()


def test_a_condition_that_raises_is_undecided_and_stops_no_other() -> None:
    def broken(_: Situation) -> list[Finding]:
        raise ZeroDivisionError

    conditions = {**load_conditions(), "broken": Condition("broken", frozenset(), broken, tells_end=True)}
    judgement = judge(conditions, Situation(now=NOW, dead_letters=1))
    assert judgement.undecided == {"broken"}
    assert "dead_letters" in judgement.findings


def test_a_condition_cannot_take_anothers_name_or_read_what_is_not_there() -> None:
    with pytest.raises(ValidationError, match="taken by"):
        condition("dead_letters", reads=["dead_letters"])(lambda _: ())
    with pytest.raises(ValidationError, match="the_weather"):
        condition("mine", reads=["the_weather"])
