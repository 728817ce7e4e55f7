"""The way of an error: classify, log, tell, recover, answer, record, notify. The methods stand in that order.

It is synchronous: tasks call it directly.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from techdeck_tasks.audit.event import (
    AuditEvent,
    AuditTrail,
    AuditUnavailableError,
    EventType,
    new_event_id,
)
from techdeck_tasks.audit.incidents.incident import SECURITY_CODES, incident_document, incident_severity
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import Classification, Severity, TechDeckError, approachable, classify, error_id_of
from techdeck_tasks.errors.record import classification_in_need, clear_value, columns_of, document_of, said
from techdeck_tasks.errors.response import (
    Response,
    build_response,
    fail_safe_response,
)
from techdeck_tasks.errors.stack import stack_of
from techdeck_tasks.events import ComplianceNotice, ErrorHandled, Event, Listener, Outcome
from techdeck_tasks.redaction import redact
from techdeck_tasks.redaction.foreign import is_order, short_name

logger = logging.getLogger(__name__)

_RECOVERING = frozenset({Outcome.RETRY, Outcome.RESPONDED})
"""Outcomes that ask for recovery: something comes after. Parked, failed and fallen back are decided."""


@dataclass(frozen=True, slots=True)
class HandledError:
    """What became of an error.

    Attributes:
        error: as it was given, or `approachable` made it.
        classification: what it is.
        response: what a caller may read.
        recovery: what the recovery said; None where none was attempted.
    """

    error: BaseException
    classification: Classification
    response: Response
    recovery: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Case:
    """One error on its way.

    Attributes:
        error: as it was given, or `approachable` made it.
        found: what it is.
        columns: what its record has in the clear.
        outcome: what becomes of the attempt.
    """

    error: BaseException
    found: Classification
    columns: Mapping[str, Any]
    outcome: Outcome

    @property
    def error_id(self) -> str:
        """The one id of this error, wherever it is told."""
        return error_id_of(self.error)

    def as_event(self, occurred_at: datetime) -> ErrorHandled:
        """Return what listeners are told of it."""
        return ErrorHandled(
            error_id=self.error_id,
            error_code=self.found.error_code,
            severity=self.found.severity.value,
            recoverable=self.found.recoverable,
            hipaa_related=self.found.hipaa_related,
            service=clear_value(self.found.service),
            operation=clear_value(self.found.operation),
            outcome=self.outcome,
            occurred_at=occurred_at,
            task_name=self.columns.get("task_name"),
            task_id=self.columns.get("task_id"),
            attempt=self.columns.get("attempt"),
            pipeline_id=self.columns.get("pipeline_id"),
            stage=self.columns.get("stage"),
        )


class Recovery(Protocol):
    """Tries to make the next attempt succeed."""

    def attempt(
        self, error: BaseException, classification: Classification, context: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the specification's keys (successful, message, strategy_used); None: nothing fits."""


@dataclass(kw_only=True, eq=False)
class ErrorFlow:
    """Takes every error, once.

    Nothing that fails in here masks the error that is handled or is raised, but for one thing: an
    `AuditUnavailableError`, which the trail raises only where its fail policy is closed, passes through.

    Attributes:
        audit: where the error is recorded.
        listeners: hear of the error (metrics, alerts); their failures are logged.
        clock: gives the time of the response.
        retention_days: how long the record must be kept.
        documentation_base_url: where docs/errors.md is served.
        recovery: None means that none is attempted.
    """

    audit: AuditTrail
    listeners: Listener
    clock: Clock
    retention_days: int
    documentation_base_url: str
    recovery: Recovery | None = None

    def handle(
        self,
        error: BaseException,
        context: Mapping[str, Any] | None = None,
        *,
        outcome: Outcome = Outcome.RESPONDED,
        event_id: uuid.UUID | None = None,
    ) -> HandledError:
        """Classify, tell the listeners, recover, answer, record and notify.

        Args:
            error: any exception but control flow.
            context: facts around it. `service`, `operation`, `task_name`, `task_id`, `attempt`,
                `pipeline_id`, `stage`, `user_id` and `subject_id` become columns of the record; the rest is
                stored sanitised inside its sealed document.
            outcome: what becomes of the attempt.
            event_id: of the record; given where the error may be handled twice and must be recorded once.

        Raises:
            AuditUnavailableError: the error could be recorded nowhere and the fail policy is closed.
        """
        facts = _facts_of(context)
        error = approachable(error)
        try:
            return self._handle(error, facts, outcome, event_id)
        except AuditUnavailableError:
            raise
        except Exception as failure:  # noqa: BLE001 - an error of the handler must never mask the one handled
            return self._fail_safe(error, failure, facts, outcome)

    def _handle(
        self, error: BaseException, facts: dict[str, Any], outcome: Outcome, event_id: uuid.UUID | None
    ) -> HandledError:
        case = Case(error, classify(error, facts), columns_of(error, facts), outcome)
        self._log(case)
        self._tell(case.as_event(self.clock.now()))
        recovery = self._recover(case, facts)
        response = build_response(
            error,
            case.found,
            documentation_base_url=self.documentation_base_url,
            timestamp=self.clock.now(),
            recovery=recovery,
        )
        document = document_of(error, case.found, facts, response, recovery)
        self._record(EventType.ERROR_HANDLING, case, document, event_id=event_id)
        if case.found.hipaa_notify:
            self._notify(case)
        if case.found.error_code in SECURITY_CODES:
            self._report_incident(case, facts)
        return HandledError(error, case.found, response, recovery)

    def _log(self, case: Case) -> None:
        over = case.outcome not in {Outcome.RETRY, Outcome.PARKED}
        logger.log(
            logging.ERROR if over and case.found.severity.rank >= Severity.HIGH.rank else logging.WARNING,
            "%s error_id=%s outcome=%s service=%s operation=%s: %s",
            case.found.error_code,
            case.error_id,
            case.outcome.value,
            clear_value(case.found.service),
            clear_value(case.found.operation),
            said(case.error),
        )

    def _tell(self, event: Event) -> None:
        try:
            self.listeners.on_event(event)
        except Exception as failure:  # noqa: BLE001 - who listens must not decide what happens
            logger.warning("a listener failed on %s: %s", type(event).__name__, said(failure))

    def _recover(self, case: Case, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if self.recovery is None or not case.found.recoverable or case.outcome not in _RECOVERING:
            return None
        try:
            return self.recovery.attempt(case.error, case.found, facts)
        except Exception as failure:  # noqa: BLE001 - a failed recovery is a result
            logger.warning("recovery of error_id=%s failed: %s", case.error_id, said(failure))
            return {"successful": False, "message": "The recovery itself failed.", "strategy_used": None}

    def _record(
        self,
        event_type: EventType,
        case: Case,
        document: Mapping[str, Any],
        *,
        severity: Severity | None = None,
        event_id: uuid.UUID | None = None,
    ) -> None:
        self.audit.record(
            AuditEvent(
                event_type=event_type,
                event_id=event_id or new_event_id(),
                severity=(severity or case.found.severity).value,
                service=clear_value(case.found.service),
                operation=clear_value(case.found.operation),
                document=document,
                outcome=case.outcome.value,
                error_id=case.error_id,
                error_code=case.found.error_code,
                hipaa_related=case.found.hipaa_related,
                hipaa_notify=case.found.hipaa_notify,
                retention_days=self.retention_days,
                **case.columns,
            )
        )

    def _notify(self, case: Case) -> None:
        details = case.error.details if isinstance(case.error, TechDeckError) else {}
        violation = details.get("violation_type")
        logger.critical(
            "HIPAA compliance notice: error_id=%s error_code=%s severity=%s requires review",
            case.error_id,
            case.found.error_code,
            case.found.severity,
        )
        self._tell(
            ComplianceNotice(
                error_id=case.error_id,
                error_code=case.found.error_code,
                violation_type=None if violation is None else str(violation),
                severity=case.found.severity.value,
                occurred_at=self.clock.now(),
            )
        )
        document = {"violation_type": violation, "requires_review": True}
        self._record(EventType.COMPLIANCE_NOTICE, case, document)

    def _report_incident(self, case: Case, facts: Mapping[str, Any]) -> dict[str, Any]:
        event_id = new_event_id()
        document = incident_document(event_id, case.error, case.found, facts)
        logger.critical(
            "security incident %s: error_id=%s error_code=%s requires investigation",
            event_id,
            case.error_id,
            case.found.error_code,
        )
        severity = incident_severity(case.found.error_code)
        self._record(EventType.SECURITY_INCIDENT, case, document, event_id=event_id, severity=severity)
        return document

    def _fail_safe(
        self, error: BaseException, failure: Exception, facts: Mapping[str, Any], outcome: Outcome
    ) -> HandledError:
        case = Case(error, classification_in_need(error, facts), {}, outcome)
        logger.critical("the error handler failed on error_id=%s: %s", case.error_id, said(failure))
        # Not the injected clock: it may be what failed.
        response = fail_safe_response(case.error_id, timestamp=datetime.now(UTC))
        document = {
            "message": said(error),
            "response": response,
            "handler_failure": said(failure),
            "handler_traceback": redact("\n".join(stack_of(failure))),
        }
        try:
            self._record(EventType.ERROR_HANDLING, case, document)
            if case.found.error_code in SECURITY_CODES:
                self._report_incident(case, {})
        except AuditUnavailableError:
            raise
        except Exception as second:  # noqa: BLE001 - there is nobody left to tell but the log
            logger.critical("error_id=%s could not be recorded: %s", case.error_id, said(second))
        return HandledError(error, case.found, response, None)


def _facts_of(context: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        return dict(context) if context else {}
    except BaseException as failure:
        # A context of its own making must not mask the error.
        if is_order(failure):
            raise
        return {"context": f"could not be read ({short_name(type(failure))})"}
