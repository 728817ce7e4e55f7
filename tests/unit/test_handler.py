"""The one place an error goes through."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType
from techdeck_tasks.errors import (
    AuthenticationError,
    AuthorizationError,
    Classification,
    EncryptionError,
    HIPAAComplianceError,
    PipelineExecutionError,
    RateLimitError,
    ServiceUnavailableError,
    TechDeckError,
    ValidationError,
    error_id_of,
)
from techdeck_tasks.events import ComplianceNotice, ErrorHandled, Event, Outcome
from techdeck_tasks.handler import ErrorHandler, Recovery

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "hunter2-secret"


class Trail:
    def __init__(self, failure: Exception | None = None) -> None:
        self.events: list[AuditEvent] = []
        self.failure = failure

    def record(self, event: AuditEvent) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(event)


class Ear:
    def __init__(self, failure: Exception | None = None) -> None:
        self.heard: list[Event] = []
        self.failure = failure

    def on_event(self, event: Event) -> None:
        self.heard.append(event)
        if self.failure is not None:
            raise self.failure


class StandingClock:
    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    def now(self) -> datetime:
        if self.failure is not None:
            raise self.failure
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


class Repair:
    def __init__(self, result: Mapping[str, Any] | None = None, failure: Exception | None = None) -> None:
        self.result, self.failure = result, failure
        self.asked: list[BaseException] = []

    def attempt(
        self, error: BaseException, classification: Classification, context: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        self.asked.append(error)
        if self.failure is not None:
            raise self.failure
        return self.result


def a_handler(
    trail: Trail | None = None,
    ear: Ear | None = None,
    recovery: Recovery | None = None,
    clock: StandingClock | None = None,
    **hooks: Any,
) -> ErrorHandler:
    return ErrorHandler(
        audit=trail or Trail(),
        listeners=ear or Ear(),
        clock=clock or StandingClock(),
        retention_days=2190,
        documentation_base_url="docs/errors.md",
        recovery=recovery,
        **hooks,
    )


def test_one_error_id_is_in_response_record_event_header_and_log(caplog: pytest.LogCaptureFixture) -> None:
    trail, ear = Trail(), Ear()
    error = ValueError("x")
    status, headers, body = a_handler(trail, ear).handle_api_error(error, {})
    (told,) = ear.heard
    assert isinstance(told, ErrorHandled)
    assert {body["error_id"], headers["X-Error-ID"], trail.events[0].error_id, told.error_id} == {
        error_id_of(error)
    }
    assert trail.events[0].document["response"] == body
    assert f"error_id={error_id_of(error)}" in caplog.text
    assert status == 500


def test_known_facts_fill_columns_and_the_rest_the_sealed_document() -> None:
    trail, ear = Trail(), Ear()
    context = {
        "service": "ehr",
        "operation": "load",
        "task_name": "lab.load",
        "task_id": "8f14e45f-ceea-467a-9d2b-2f3c1a0b9d11",
        "attempt": 2,
        "pipeline_id": "p-1",
        "stage": "load",
        "user_id": "jroe@example.org",
        "subject_id": "123-45-6789",
        "rows": 7,
        "password": SECRET,
    }
    a_handler(trail, ear).handle(ServiceUnavailableError("down"), context, outcome=Outcome.RETRY)
    (event,) = trail.events
    assert event.event_type is EventType.ERROR_HANDLING
    assert (event.service, event.operation, event.task_name) == ("ehr", "load", "lab.load")
    assert (event.task_id, event.attempt, event.pipeline_id, event.stage) == (
        context["task_id"],
        2,
        "p-1",
        "load",
    )
    assert (event.outcome, event.severity, event.error_code) == ("retry", "high", "SERVICE_UNAVAILABLE")
    assert event.retention_days == 2190
    # Both are indexed blind: redacted they would all be one.
    assert (event.user_id, event.subject_id) == ("jroe@example.org", "123-45-6789")
    assert event.document["context"] == {"rows": 7, "password": "[REDACTED]"}
    json.dumps(event.document, allow_nan=False)
    (told,) = ear.heard
    assert isinstance(told, ErrorHandled)
    assert (told.attempt, told.task_name, told.outcome) == (2, "lab.load", Outcome.RETRY)


def test_an_identifier_in_a_clear_column_is_redacted() -> None:
    trail, ear = Trail(), Ear()
    a_handler(trail, ear).handle(
        ValueError(), {"pipeline_id": "ssn 123-45-6789", "service": "jroe@example.org"}
    )
    assert "123-45" not in str(trail.events[0].pipeline_id)
    assert "jroe" not in trail.events[0].service
    assert "jroe" not in repr(ear.heard)


def test_an_errors_own_details_fill_what_the_context_leaves_open() -> None:
    trail = Trail()
    handler = a_handler(trail)
    handler.handle(PipelineExecutionError("x", pipeline_id="p", stage="load"))
    handler.handle(AuthorizationError("x", user_id="u"))
    assert (trail.events[0].pipeline_id, trail.events[0].stage) == ("p", "load")
    assert trail.events[1].user_id == "u"


def test_no_data_reaches_record_log_or_response(caplog: pytest.LogCaptureFixture) -> None:
    trail = Trail()

    def insert() -> None:
        original = psycopg.errors.CheckViolation(f"violated\nDETAIL: Failing row ({SECRET})")
        cause = IntegrityError("INSERT", {"name": SECRET}, original)
        cause.__cause__ = original
        raise PipelineExecutionError("loading failed", original_error=cause) from cause

    with pytest.raises(PipelineExecutionError) as caught:
        insert()
    handled = a_handler(trail).handle(caught.value, {"cause": caught.value.__cause__})
    (event,) = trail.events
    assert SECRET not in json.dumps(dict(event.document)) + json.dumps(handled.response) + caplog.text
    assert "SQLSTATE 23514" in event.document["traceback"]
    assert "which led to:" in event.document["traceback"]


def test_a_caller_never_reads_the_text_of_a_foreign_exception() -> None:
    body = a_handler().handle_error(RuntimeError("the vault is behind the mirror"))
    assert "mirror" not in json.dumps(body)


# -- recovery ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "asked"),
    [
        (Outcome.RETRY, True),
        (Outcome.RESPONDED, True),
        (Outcome.PARKED, False),
        (Outcome.FALLBACK, False),
        (Outcome.FAILED, False),
    ],
)
def test_recovery_is_attempted_where_something_comes_after(outcome: Outcome, asked: bool) -> None:
    repair = Repair({"successful": True, "message": "halved the batch", "strategy_used": "reduce_batch_size"})
    trail = Trail()
    handled = a_handler(trail, recovery=repair).handle(PipelineExecutionError("x"), outcome=outcome)
    assert bool(repair.asked) is asked
    assert ("recovery_attempted" in handled.response) is asked
    if asked:
        assert handled.response["recovery_successful"] is True
        assert handled.response["recovery_message"] == "halved the batch"
        assert handled.recovery is not None
        assert trail.events[0].document["recovery"]["strategy_used"] == "reduce_batch_size"


def test_what_is_not_recoverable_is_not_recovered() -> None:
    repair = Repair({"successful": True})
    a_handler(recovery=repair).handle(ValueError())
    assert repair.asked == []


def test_no_fitting_strategy_is_no_attempt() -> None:
    assert "recovery_attempted" not in a_handler(recovery=Repair(None)).handle_error(ValidationError("x"))


def test_a_recovery_that_fails_is_an_unsuccessful_one() -> None:
    response = a_handler(recovery=Repair(failure=RuntimeError(SECRET))).handle_error(ValidationError("x"))
    assert response["error_code"] == "VALIDATION_ERROR"
    assert response["recovery_successful"] is False
    assert SECRET not in json.dumps(response)


# -- HIPAA -------------------------------------------------------------------------------------------


def test_a_violation_is_notified_and_recorded_with_its_incident_under_one_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trail, ear = Trail(), Ear()
    error = HIPAAComplianceError("x", violation_type="disclosure")
    a_handler(trail, ear).handle(error)
    notice = ear.heard[1]
    assert isinstance(notice, ComplianceNotice)
    assert (notice.error_id, notice.violation_type, notice.requires_review) == (
        error.error_id,
        "disclosure",
        True,
    )
    assert [event.event_type for event in trail.events] == [
        EventType.ERROR_HANDLING,
        EventType.COMPLIANCE_NOTICE,
        EventType.SECURITY_INCIDENT,
    ]
    assert {event.error_id for event in trail.events} == {error.error_id}
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


def test_an_error_without_need_of_notice_sends_none() -> None:
    ear = Ear()
    a_handler(ear=ear).handle(AuthorizationError("x"))
    assert [type(event) for event in ear.heard] == [ErrorHandled]


# -- security incidents ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "severity"),
    [
        (AuthenticationError("x"), "medium"),
        (AuthorizationError("x"), "medium"),
        (EncryptionError("x"), "medium"),
        (HIPAAComplianceError("x"), "high"),
    ],
)
def test_a_security_error_is_put_on_record_as_an_incident(error: TechDeckError, severity: str) -> None:
    trail = Trail()
    a_handler(trail).handle(error, {"service": "ehr", "rows": 3, "password": SECRET, "user_id": "jane"})
    (event,) = (event for event in trail.events if event.event_type is EventType.SECURITY_INCIDENT)
    assert (event.severity, event.service, event.error_code) == (severity, "ehr", error.error_code)
    assert (event.error_id, event.hipaa_related, event.user_id) == (error.error_id, True, "jane")
    document = dict(event.document)
    assert document.pop("message") == f"security incident: {error.error_code}"
    assert document.pop("error_details") == error.details
    assert document == {
        "incident_id": str(event.event_id),
        "incident_type": "security_error",
        "severity": severity,
        "timestamp": event.occurred_at.isoformat(),
        "error_id": error.error_id,
        "error_code": error.error_code,
        "context": {"service": "ehr", "rows": 3, "password": "[REDACTED]"},
        "requires_investigation": True,
        "notification_sent": False,
    }


@pytest.mark.parametrize("error", [ValidationError("x"), ServiceUnavailableError("x"), ValueError("x")])
def test_any_other_error_is_no_incident(error: Exception) -> None:
    trail = Trail()
    a_handler(trail).handle(error)
    assert [event.event_type for event in trail.events] == [EventType.ERROR_HANDLING]


def test_an_incident_is_on_record_although_the_handler_failed() -> None:
    trail = Trail()
    a_handler(trail, clock=StandingClock(RuntimeError("no time"))).handle(AuthenticationError("x"))
    assert EventType.SECURITY_INCIDENT in [event.event_type for event in trail.events]


def test_an_application_can_report_an_incident_and_reads_what_was_recorded() -> None:
    trail = Trail()
    error = TechDeckError("copied to a private disk", details={"Certificate_PEM": "x", "rows": [{"n": 1}]})
    said = a_handler(trail).log_security_incident(error, context={"service": "export"})
    (event,) = trail.events
    assert event.document == said
    assert said["error_details"] == {"Certificate_PEM": "[SECURITY_REDACTED]", "rows": [{"n": 1}]}
    assert said["requires_investigation"] is True


# -- failing safe ------------------------------------------------------------------------------------

BROKEN: list[dict[str, Any]] = [
    {"clock": StandingClock(RuntimeError(SECRET))},
    {"trail": Trail(RuntimeError(SECRET))},
    {"clock": StandingClock(RuntimeError(SECRET)), "trail": Trail(RuntimeError(SECRET))},
]


@pytest.mark.parametrize("broken", BROKEN, ids=["clock", "trail", "both"])
def test_a_handler_that_fails_answers_safely_and_never_masks_the_error(
    broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    error = ValidationError("x")
    handled = a_handler(**broken).handle(error)
    assert handled.error is error
    assert handled.classification.error_code == "VALIDATION_ERROR"
    response = handled.response
    assert response["error_id"] == error.error_id
    assert (response["error_code"], response["fail_safe_mode"]) == ("INTERNAL_ERROR", True)
    assert {"message", "timestamp", "recoverable", "support_reference"} <= response.keys()
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


def test_a_failure_of_the_handler_is_itself_recorded() -> None:
    trail = Trail()
    a_handler(trail, clock=StandingClock(RuntimeError("no time"))).handle(ValueError())
    assert trail.events[0].document["handler_failure"] == "no time"


def test_a_listener_that_fails_changes_nothing() -> None:
    trail = Trail()
    response = a_handler(trail, Ear(RuntimeError(SECRET))).handle_error(HIPAAComplianceError("x"))
    assert response["error_code"] == "HIPAA_COMPLIANCE_ERROR"
    assert len(trail.events) == 3


def test_a_closed_fail_policy_of_the_audit_passes_through() -> None:
    handler = a_handler(Trail(AuditUnavailableError("the audit log is full")))
    with pytest.raises(AuditUnavailableError):
        handler.handle(ValueError())
    with pytest.raises(AuditUnavailableError):
        handler.handle_error(ValueError())


def test_a_closed_fail_policy_passes_through_a_failing_handler_as_well() -> None:
    broken = a_handler(Trail(AuditUnavailableError("full")), clock=StandingClock(RuntimeError()))
    with pytest.raises(AuditUnavailableError):
        broken.handle(ValueError())


class UnreadableContext(dict[str, Any]):
    """Holds something and lets nobody see it."""

    def keys(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize("context", [UnreadableContext(a=1), ["no", "mapping"], "text", 5])
def test_a_context_that_cannot_be_read_masks_nothing(context: Any) -> None:
    trail = Trail()
    handled = a_handler(trail).handle(ConnectionError("away"), context)
    assert handled.response["error_code"] == "CONNECTION_ERROR"
    assert [event.error_code for event in trail.events] == ["CONNECTION_ERROR"]


def test_a_hostile_context_is_survived() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

    trail = Trail()
    handled = a_handler(trail).handle(ValidationError("x"), {"pipeline_id": Hostile(), "other": Hostile()})
    assert handled.response["error_id"] == trail.events[0].error_id


@given(
    st.dictionaries(
        st.sampled_from(["service", "operation", "task_id", "attempt", "user_id", "stage", "free"]),
        st.recursive(
            st.none() | st.text() | st.integers() | st.binary() | st.floats(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
    ),
    st.sampled_from(list(Outcome)),
)
def test_any_context_is_handled(context: dict[str, Any], outcome: Outcome) -> None:
    trail = Trail()
    handled = a_handler(trail).handle(TechDeckError("x"), context, outcome=outcome)
    assert "fail_safe_mode" not in handled.response
    json.dumps(dict(trail.events[0].document), allow_nan=False)


# -- the entrances -----------------------------------------------------------------------------------


def test_an_api_error_is_answered_with_status_headers_and_body() -> None:
    trail = Trail()
    status, headers, body = a_handler(trail).handle_api_error(
        RateLimitError("slow down", reset_time=NOW + timedelta(seconds=5)),
        {"request_method": "GET", "request_url": "/runs", "request_id": "id-1", "client_ip": "10.0.0.1"},
    )
    assert status == 429
    assert headers["Retry-After"] == "5"
    assert headers["X-Request-ID"] == "id-1"
    assert "no-store" in headers["Cache-Control"]
    assert body["message"] == "slow down"
    assert trail.events[0].document["context"]["request_url"] == "/runs"


def test_a_forged_request_id_is_replaced_in_header_and_record() -> None:
    trail = Trail()
    _, headers, _ = a_handler(trail).handle_api_error(ValueError(), {"request_id": "a\r\nX-Admin: 1"})
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["X-Request-ID"])
    assert "X-Admin" not in json.dumps(dict(trail.events[0].document))


def test_answering_alone_tells_and_records_nothing() -> None:
    trail, ear = Trail(), Ear()
    status, _, body = a_handler(trail, ear).answer_api_error(ValidationError("x"), {})
    assert (status, body["error_code"], trail.events, ear.heard) == (400, "VALIDATION_ERROR", [], [])


def test_a_pipeline_error_marks_its_run() -> None:
    trail = Trail()
    marked: list[tuple[str, Any]] = []
    handler = a_handler(trail, on_pipeline_error=lambda *facts: marked.append(facts))
    response = handler.handle_pipeline_error(ValueError("x"), "p-1", "load", {"rows": 3})
    assert marked == [("p-1", response)]
    (event,) = trail.events
    assert (event.pipeline_id, event.stage, event.operation) == ("p-1", "load", "pipeline_execution")
    assert event.document["context"]["rows"] == 3


def test_an_upload_error_cleans_up_and_then_tells() -> None:
    trail = Trail()
    calls: list[str] = []
    handler = a_handler(
        trail,
        clean_up_upload=lambda upload_id, response: calls.append(f"clean {upload_id}"),
        on_upload_failed=lambda upload_id, response: calls.append(
            f"tell {upload_id} {response['error_code']}"
        ),
    )
    handler.handle_file_upload_error(OSError(28, "full"), "up-1", "x.csv")
    assert calls == ["clean up-1", "tell up-1 SERVICE_UNAVAILABLE"]
    assert trail.events[0].document["context"] == {
        "operation_type": "file_upload",
        "upload_id": "up-1",
        "filename": "x.csv",
    }


def test_a_hook_that_fails_masks_nothing() -> None:
    def fail(subject: str, response: dict[str, Any]) -> None:
        raise RuntimeError(SECRET)

    handler = a_handler(on_pipeline_error=fail, clean_up_upload=fail, on_upload_failed=fail)
    assert handler.handle_pipeline_error(ValidationError("x"), "p")["error_code"] == "VALIDATION_ERROR"
    assert handler.handle_file_upload_error(ValidationError("x"), "u")["error_code"] == "VALIDATION_ERROR"


def test_the_asynchronous_forms_do_the_same() -> None:
    trail = Trail()
    handler = a_handler(trail)

    async def everything() -> list[str]:
        return [
            (await handler.ahandle(ValidationError("x"), outcome=Outcome.FAILED)).response["error_code"],
            (await handler.ahandle_error(ValidationError("x")))["error_code"],
            (await handler.ahandle_api_error(ValidationError("x"), {}))[2]["error_code"],
            (await handler.ahandle_pipeline_error(ValidationError("x"), "p", "s"))["error_code"],
            (await handler.ahandle_file_upload_error(ValidationError("x"), "u"))["error_code"],
        ]

    assert asyncio.run(everything()) == ["VALIDATION_ERROR"] * 5
    assert len(trail.events) == 5
