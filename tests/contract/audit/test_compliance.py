"""The compliance report: its figures equal plain SQL, it is kept as it was made, and signed off once."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from techdeck_tasks.audit.compliance.controls import REMEDIATION
from techdeck_tasks.audit.compliance.figures import violations
from techdeck_tasks.audit.compliance.page import render_html
from techdeck_tasks.audit.compliance.report import generate
from techdeck_tasks.audit.compliance.schedule import last_period, make_due
from techdeck_tasks.audit.compliance.store import ReportKind, ReportStore
from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType, new_event_id
from techdeck_tasks.audit.incidents.store import IncidentStore
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.testing.clock import FakeClock

NOW = datetime(2026, 4, 10, 12, tzinfo=UTC)
START, END = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
CODES = ("AUTH_ERROR", "TIMEOUT_ERROR", "HIPAA_COMPLIANCE_ERROR", "VALIDATION_ERROR", None)
SEVERITIES = ("high", "low", "critical", "low", "medium")
HIPAA = (True, False, True, False, False)
ROWS = 240


@pytest.fixture(scope="module")
def log(
    databases: Callable[[], AbstractContextManager[Engine]],
    new_sealer: Callable[[], Sealer],
    new_event: Callable[..., AuditEvent],
) -> Iterator[Engine]:
    """Events from January to April, nine hours apart, and other kinds of events between them."""
    sealer = new_sealer()

    def sealed(number: int) -> Any:
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=9) * number
        kind = number * 7 % 5
        others = {11: EventType.AUDIT_READ, 12: EventType.SECURITY_INCIDENT, 13: EventType.OPERATOR_ACTION}
        return sealer.seal(
            new_event(
                event_id=new_event_id(int(moment.timestamp() * 1000) * 10**6),
                event_type=others.get(number % 20, EventType.ERROR_HANDLING),
                error_id=f"error-{number}",
                error_code=CODES[kind],
                severity=SEVERITIES[kind],
                hipaa_related=HIPAA[kind],
                service="<b>lab</b>" if number % 3 else "ehr",
            )
        )

    with databases() as engine:
        writer = AuditWriter(engine, "audit@one", FakeClock(NOW))
        assert writer.write([sealed(number) for number in range(ROWS)]).written == ROWS
        yield engine


@pytest.fixture
def store(engine: Engine, trail: Any) -> ReportStore:
    return ReportStore(engine, trail, FakeClock(NOW), 2190)


def _rows(engine: Engine, start: datetime, end: datetime) -> list[Any]:
    """The clear columns of a period, each row fetched: what the report's SQL is compared with."""
    statement = text("""
        SELECT occurred_at, event_type, error_code, severity, service, hipaa_related FROM audit_event
        WHERE occurred_at >= :start AND occurred_at < :end
    """)
    with engine.connect() as connection:
        return list(connection.execute(statement, {"start": start, "end": end}))


# -- figures ---------------------------------------------------------------------------------------------

PERIODS = [
    (START, END),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    (datetime(2026, 1, 31, 18, tzinfo=UTC), datetime(2026, 2, 1, 6, tzinfo=UTC)),
    (
        datetime(2026, 2, 1, tzinfo=timezone(timedelta(hours=9))),
        datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=-5))),
    ),
    (datetime(2026, 3, 5, 0, 30, tzinfo=UTC), datetime(2026, 3, 5, 0, 31, tzinfo=UTC)),
]


@pytest.mark.parametrize(("start", "end"), PERIODS)
def test_every_figure_equals_a_count_of_the_rows(start: datetime, end: datetime, log: Engine) -> None:
    document = generate(log, start, end, now=NOW)
    rows = _rows(log, start, end)
    errors = [row for row in rows if row.event_type == "error_handling"]
    hipaa = [row for row in errors if row.hipaa_related]
    assert document["total_errors"] == len(errors)
    assert document["hipaa_violations_total"] == len(hipaa) == len(document["hipaa_violations"])
    assert document["violation_severity_distribution"] == Counter(row.severity for row in hipaa)
    assert dict(document["most_common_violations"]) == Counter(row.error_code for row in hipaa)
    assert {name: facts["errors"] for name, facts in document["errors_by_code"].items()} == Counter(
        row.error_code or "unknown" for row in errors
    )
    assert {name: facts["hipaa_related"] for name, facts in document["errors_by_service"].items()} == {
        name: sum(row.hipaa_related for row in errors if row.service == name)
        for name in {row.service for row in errors}
    }
    by_day = Counter(row.occurred_at.date().isoformat() for row in errors)
    assert {day["date"]: day["errors"] for day in document["trend"] if day["errors"]} == by_day
    assert sum(day["hipaa_related"] for day in document["trend"]) == len(hipaa)
    assert document["events_by_type"] == Counter(row.event_type for row in rows)
    before = [row for row in _rows(log, start - (end - start), start) if row.event_type == "error_handling"]
    assert document["previous_period"]["errors"] == len(before)
    assert document["previous_period"]["hipaa_related"] == sum(row.hipaa_related for row in before)


def test_the_trend_has_every_day_also_the_quiet_ones(log: Engine) -> None:
    dates = [day["date"] for day in generate(log, START, END, now=NOW)["trend"]]
    assert (len(dates), dates[0], dates[-1]) == (59, "2026-02-01", "2026-03-31")


def test_a_violation_is_listed_with_its_clear_columns(log: Engine) -> None:
    first = generate(log, START, END, now=NOW)["hipaa_violations"][0]
    assert set(first) == {
        "audit_id", "timestamp", "error_id", "error_code", "severity", "service", "operation", "pipeline_id",
        "stage", "outcome", "notification_required",
    }  # fmt: skip
    assert first["timestamp"] >= START.isoformat()


def test_an_empty_period_has_all_keys_and_zeros(log: Engine) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    document = generate(log, start, start + timedelta(days=2), now=NOW)
    assert document.keys() == generate(log, START, END, now=NOW).keys()
    assert (document["total_errors"], document["hipaa_violations"]) == (0, [])
    assert document["remediation_actions"] == []
    assert document["previous_period"]["errors_change_percent"] is None
    assert [day["errors"] for day in document["trend"]] == [0, 0]


def test_the_specifications_keys_and_remedies_are_there(log: Engine) -> None:
    document = generate(log, START, END, now=NOW)
    assert {
        "report_id", "report_period", "total_errors", "hipaa_violations", "violation_severity_distribution",
        "most_common_violations", "remediation_actions", "generated_at",
    } <= document.keys()  # fmt: skip
    assert document["report_period"] == {"start_date": START.isoformat(), "end_date": END.isoformat()}
    assert document["remediation_actions"][:4] == list(REMEDIATION)
    assert any("164.402" in action for action in document["remediation_actions"])


@pytest.mark.parametrize(
    ("start", "end", "complaint"),
    [
        (END, START, "must end after it starts"),
        (START, START, "must end after it starts"),
        (datetime(2026, 1, 1), END, "start needs a time zone"),  # noqa: DTZ001 - the subject
        (START, datetime(2026, 1, 1), "end needs a time zone"),  # noqa: DTZ001 - the subject
        (datetime(1990, 1, 1, tzinfo=UTC), END, "at most 3660 days"),
    ],
)
def test_a_period_that_makes_no_sense_is_refused(
    start: datetime, end: datetime, complaint: str, store: ReportStore, trail: Any
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        store.generate_compliance_report(start, end)
    assert (store.search(), trail.events) == ([], [])


def test_violations_are_listed_up_to_a_bound_the_oldest_first(log: Engine) -> None:
    everything = generate(log, START, END, now=NOW)["hipaa_violations"]
    with log.connect() as connection:
        assert violations(connection, START, END, limit=3) == everything[:3]


def test_incidents_come_with_their_deadlines(
    engine: Engine, writer: AuditWriter, sealer: Sealer, new_event: Callable[..., AuditEvent], trail: Any
) -> None:
    now = datetime.now(UTC)
    for days_ago in (61, 1):
        moment = int((now - timedelta(days=days_ago)).timestamp() * 1000) * 10**6
        event = new_event(event_type=EventType.SECURITY_INCIDENT, event_id=new_event_id(moment))
        writer.write([sealer.seal(event)])
    IncidentStore(engine, trail, FakeClock(now), 2190).catch_up()
    found = generate(engine, now - timedelta(days=90), now, now=now)["incidents"]
    assert (found["discovered"], found["unresolved_now"], found["overdue_now"]) == (2, 2, 1)
    assert [incident["overdue"] for incident in found["listed"]] == [True, False]
    assert found["listed"][0]["notification_deadline"] < now.isoformat()


def test_the_last_verification_is_told_of(log: Engine) -> None:
    verified = {"verified_at": NOW.isoformat(), "ok": False, "rows": 7, "findings": 2}
    document = generate(log, START, END, now=NOW, last_verify=lambda: verified)
    assert document["last_verify"] == verified
    (integrity,) = [control for control in document["controls"] if "164.312(c)" in control["section"]]
    assert "2 FINDINGS" in integrity["evidence"]


# -- keeping and signing ---------------------------------------------------------------------------------


def test_a_report_is_kept_byte_for_byte_and_its_making_is_on_record(store: ReportStore, trail: Any) -> None:
    document = store.generate_compliance_report(START, END, by="jane")
    (stored,) = store.search()
    assert stored == store.get(document["report_id"][:8])
    assert (stored.document, stored.kind, stored.generated_by) == (document, ReportKind.ON_DEMAND, "jane")
    assert stored.unchanged
    (event,) = trail.events
    assert (event.operation, event.user_id, event.document["sha256"]) == (
        "report.generate",
        "jane",
        stored.sha256,
    )


def test_a_report_that_cannot_be_recorded_is_not_stored(store: ReportStore, trail: Any) -> None:
    trail.away = True
    with pytest.raises(AuditUnavailableError):
        store.generate_compliance_report(START, END)
    assert store.search() == []


def test_a_reviewer_signs_once_and_on_record(store: ReportStore, trail: Any) -> None:
    report_id = store.generate_compliance_report(START, END)["report_id"]
    signed = store.sign_off(report_id, reviewer="officer", note="asked jroe@example.org, fine")
    assert (signed.reviewed_by, signed.reviewed_at) == ("officer", NOW)
    assert "jroe@" not in str(signed.review_note)
    assert store.get(report_id) == signed
    assert (trail.events[-1].operation, trail.events[-1].user_id) == ("report.sign_off", "officer")
    assert trail.events[-1].document["sha256"] == signed.sha256
    with pytest.raises(ValidationError, match="signed off by officer; that stays"):
        store.sign_off(report_id, reviewer="eve", note="me too")


def test_of_several_reviewers_at_once_one_signs(store: ReportStore) -> None:
    report_id = store.generate_compliance_report(START, END)["report_id"]

    def sign(number: int) -> bool:
        try:
            store.sign_off(report_id, reviewer=f"officer-{number}", note="fine")
        except ValidationError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(sign, range(4))) == 1


def _tamper(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE compliance_report DISABLE TRIGGER refuse_change"))
        connection.execute(text(statement))
        connection.execute(text("ALTER TABLE compliance_report ENABLE ALWAYS TRIGGER refuse_change"))


def test_what_was_changed_since_is_not_signed_and_says_so(store: ReportStore, engine: Engine) -> None:
    report_id = store.generate_compliance_report(START, END)["report_id"]
    _tamper(engine, "UPDATE compliance_report SET document = document || ' '")
    assert not store.get(report_id).unchanged
    with pytest.raises(ValidationError, match="SHA-256 differs"):
        store.sign_off(report_id, reviewer="officer", note="fine")
    assert "was changed after it was stored" in render_html(store.get(report_id))


def test_a_signature_under_another_copy_is_refused(store: ReportStore) -> None:
    report_id = store.generate_compliance_report(START, END)["report_id"]
    with pytest.raises(ValidationError, match="SHA-256 differs"):
        store.sign_off(report_id, reviewer="officer", note="fine", sha256="0" * 64)
    read = store.get(report_id).sha256
    assert store.sign_off(report_id, reviewer="officer", note="fine", sha256=read).reviewed_by == "officer"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE compliance_report SET document = '{}'",
        "UPDATE compliance_report SET document = '{}', reviewed_at = now(), reviewed_by = 'eve'",
        "UPDATE compliance_report SET sha256 = ''",
        "DELETE FROM compliance_report",
    ],
)
def test_the_database_refuses_to_change_or_remove_a_report(
    statement: str, store: ReportStore, engine: Engine
) -> None:
    store.generate_compliance_report(START, END)
    with pytest.raises(DBAPIError, match="signed off once and never changed"), engine.begin() as connection:
        connection.execute(text(statement))


def test_a_report_that_is_not_there_is_named(store: ReportStore) -> None:
    with pytest.raises(ValidationError, match="there is no report 'x'"):
        store.get("x")


# -- the schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "now", "start", "end"),
    [
        ("daily", "2026-03-01T01:00", "2026-02-28", "2026-03-01"),
        ("daily", "2026-03-01T00:59", "2026-02-27", "2026-02-28"),
        ("weekly", "2026-03-02T01:00", "2026-02-23", "2026-03-02"),
        ("weekly", "2026-03-02T00:30", "2026-02-16", "2026-02-23"),
        ("weekly", "2026-01-01T05:00", "2025-12-22", "2025-12-29"),
        ("monthly", "2026-01-15T00:00", "2025-12-01", "2026-01-01"),
        ("monthly", "2024-03-01T01:00", "2024-02-01", "2024-03-01"),
        ("monthly", "2024-03-01T00:00", "2024-01-01", "2024-02-01"),
    ],
)
def test_the_last_period_is_the_one_that_is_over_and_settled(
    kind: str, now: str, start: str, end: str
) -> None:
    period = last_period(ReportKind(kind), datetime.fromisoformat(f"{now}+00:00"))
    assert period == tuple(datetime.fromisoformat(f"{day}T00:00+00:00") for day in (start, end))


def test_two_schedulers_make_one_report_for_each_slot(store: ReportStore, trail: Any) -> None:
    kinds = (ReportKind.DAILY, ReportKind.WEEKLY, ReportKind.MONTHLY)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: make_due(store, kinds, NOW), range(4))) == 3
    assert {(report.kind, report.period_end) for report in store.search()} == {
        (ReportKind.DAILY, datetime(2026, 4, 10, tzinfo=UTC)),
        (ReportKind.WEEKLY, datetime(2026, 4, 6, tzinfo=UTC)),
        (ReportKind.MONTHLY, datetime(2026, 4, 1, tzinfo=UTC)),
    }
    assert len(trail.events) == 3
    assert make_due(store, kinds, NOW + timedelta(days=1)) == 1


# -- the page --------------------------------------------------------------------------------------------


@pytest.fixture
def page(log: Engine, trail: Any) -> str:
    store = ReportStore(log, trail, FakeClock(NOW), 2190)
    stored = store.make(ReportKind.ON_DEMAND, START, END, "<i>jane</i>")
    assert stored is not None
    return render_html(stored)


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert "<script" not in page.lower()
    assert not re.findall(r"(?:https?:)?//[a-z]", page)
    assert not re.findall(r"\b(?:src|href)=|url\(|@import", page)
    assert "default-src 'none'" in page


def test_the_page_escapes_what_the_log_says(page: str) -> None:
    assert "&lt;b&gt;lab&lt;/b&gt;" in page
    assert "&lt;i&gt;jane" in page
    assert "<b>lab" not in page


def test_no_report_claims_compliance(page: str, log: Engine) -> None:
    everything = page + json.dumps(generate(log, START, END, now=NOW))
    assert "compliant" not in everything.lower()


def test_the_page_shows_the_figures_the_days_and_that_nobody_signed(page: str, log: Engine) -> None:
    document = generate(log, START, END, now=NOW)
    assert f"<strong>{document['total_errors']}</strong>" in page
    assert page.count('<rect class="all" x=') == 59
    assert "Not signed off yet" in page
    assert "45 CFR 164.312(b)" in page


def test_long_periods_are_drawn_with_several_days_a_column(log: Engine, trail: Any) -> None:
    store = ReportStore(log, trail, FakeClock(NOW), 2190)
    stored = store.make(ReportKind.ON_DEMAND, START - timedelta(days=1000), END, "jane")
    assert stored is not None
    page = render_html(stored)
    assert "Errors per 12 days" in page
    assert 80 < page.count('<rect class="all" x=') <= 92
