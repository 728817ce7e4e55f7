"""The built-in conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

from techdeck_tasks.alerts.condition import Finding, Severity, condition
from techdeck_tasks.alerts.situation import Situation
from techdeck_tasks.audit.incidents.incident import Incident
from techdeck_tasks.resilience.breaker import State

BACKLOG_S = 120.0
"""Audit events older than this have missed several batches: nobody drains the stream."""

VERIFY_EVERY = timedelta(hours=26)
"""Beat asks each 24 hours; the verification itself may take some time."""

DEADLINE_NEAR = timedelta(days=7)
"""What is left of the 60 days of 45 CFR 164.404(b) when somebody should have been told."""

SECURITY_INCIDENT = "security_incident"

_OPEN_STATES = (State.OPEN, State.FORCED_OPEN)


def _of_metrics(situation: Situation, alert_type: str) -> Iterator[Finding]:
    for found in situation.error_conditions:
        if found["alert_type"] == alert_type:
            yield Finding(
                alert_type,
                Severity(found["severity"]),
                found["message"],
                subject=found.get("service"),
                value=found["current_value"],
                threshold=found["threshold"],
            )


@condition("high_error_rate", reads=["error_conditions"])
def high_error_rate(situation: Situation) -> Iterator[Finding]:
    """Too much of all that runs fails."""
    return _of_metrics(situation, "high_error_rate")


@condition("hipaa_violation", reads=["error_conditions"])
def hipaa_violation(situation: Situation) -> Iterator[Finding]:
    """Errors of the last hour violate the rules for health data."""
    return _of_metrics(situation, "hipaa_violation")


@condition("high_service_error_rate", reads=["error_conditions"])
def high_service_error_rate(situation: Situation) -> Iterator[Finding]:
    """Too much of what one service does fails."""
    return _of_metrics(situation, "high_service_error_rate")


@condition("breaker_open", reads=["breakers"])
def breaker_open(situation: Situation) -> Iterator[Finding]:
    """A circuit breaker lets nothing through."""
    for name, state in situation.breakers.items():
        if state in _OPEN_STATES:
            yield Finding(
                "breaker_open",
                Severity.WARNING,
                f"circuit breaker {name} is {state}",
                subject=name,
            )


@condition("audit_backlog", reads=["backlog"])
def audit_backlog(situation: Situation) -> Iterator[Finding]:
    """Audit events wait too long for their way into the log."""
    backlog = situation.backlog
    if backlog is None or backlog.oldest_age_s is None or backlog.oldest_age_s <= BACKLOG_S:
        return
    yield Finding(
        "audit_backlog",
        Severity.CRITICAL,
        f"{backlog.stream_entries} audit events wait for an audit worker, "
        f"the oldest for {backlog.oldest_age_s:.0f} s; {backlog.consumers} workers were heard of",
        value=backlog.oldest_age_s,
        threshold=BACKLOG_S,
    )


@condition("audit_spool", reads=["backlog"])
def audit_spool(situation: Situation) -> Iterator[Finding]:
    """Audit events lie on the disk of the audit worker's machine."""
    backlog = situation.backlog
    if backlog is None or not backlog.spool_files + backlog.damaged_spool_files:
        return
    yield Finding(
        "audit_spool",
        Severity.WARNING,
        f"the audit spool holds {backlog.spool_files} files of {backlog.spool_bytes} bytes, "
        f"and {backlog.damaged_spool_files} damaged ones",
        value=float(backlog.spool_files + backlog.damaged_spool_files),
        threshold=0,
    )


@condition("audit_quarantine", reads=["backlog"])
def audit_quarantine(situation: Situation) -> Iterator[Finding]:
    """Audit events cannot be written."""
    if situation.backlog is not None and situation.backlog.quarantined_entries:
        yield _count(
            "audit_quarantine", situation.backlog.quarantined_entries, "audit events cannot be written"
        )


@condition("audit_verify_failed", reads=["verification"])
def audit_verify_failed(situation: Situation) -> Iterator[Finding]:
    """The last verification found that somebody changed the audit log."""
    last = situation.verification
    if last is not None and not last.ok:
        yield Finding(
            "audit_verify_failed",
            Severity.CRITICAL,
            f"the verification of the audit log found {last.finding_count} things wrong in {last.rows} rows; "
            "run 'techdeck audit verify'",
            value=float(last.finding_count),
            threshold=0,
        )


@condition("audit_verify_overdue", reads=["verification", "watched_since"])
def audit_verify_overdue(situation: Situation) -> Iterator[Finding]:
    """Nobody has verified the audit log for too long."""
    last = situation.verification
    since = last.finished_at if last is not None else situation.watched_since
    if since is None or situation.now - since <= VERIFY_EVERY:
        return
    hours = (situation.now - since) / timedelta(hours=1)
    yield Finding(
        "audit_verify_overdue",
        Severity.CRITICAL,
        f"the audit log was not verified for {hours:.0f} hours",
        value=hours,
        threshold=VERIFY_EVERY / timedelta(hours=1),
    )


@condition("retention_overdue", reads=["overdue_months"])
def retention_overdue(situation: Situation) -> Iterator[Finding]:
    """Months of the audit log are past their retention, under no hold, and still there."""
    months = situation.overdue_months
    if months:
        yield Finding(
            "retention_overdue",
            Severity.WARNING,
            f"months of the audit log past their retention: {len(months)}, the oldest is "
            f"{months[0]:%Y-%m}; set TECHDECK_AUDIT_ARCHIVE_URL, or run 'techdeck audit prune'",
            value=float(len(months)),
            threshold=0,
        )


@condition(SECURITY_INCIDENT, reads=["unnotified_incidents"], tells_end=False)
def security_incident(situation: Situation) -> Iterator[Finding]:
    """Nobody was told of security incidents: one finding a code, or an attack would bury its readers."""
    by_code: dict[str, list[Incident]] = defaultdict(list)
    for incident in situation.unnotified_incidents:
        by_code[incident.error_code or f"{incident.service}/{incident.operation}"].append(incident)
    for code, incidents in by_code.items():
        first = min(incident.discovered_at for incident in incidents)
        yield Finding(
            SECURITY_INCIDENT,
            Severity.CRITICAL,
            f"{len(incidents)} new security incidents {code} since {first:%Y-%m-%d %H:%M} UTC; "
            "see 'techdeck incidents list'",
            subject=code,
            value=float(len(incidents)),
            threshold=0,
            items=frozenset(incident.incident_id for incident in incidents),
        )


@condition("incident_deadline", reads=["due_incidents"])
def incident_deadline(situation: Situation) -> Iterator[Finding]:
    """Unresolved incidents whose individuals must be told within days."""
    due = situation.due_incidents
    if due:
        first = min(incident.notification_deadline for incident in due)
        yield Finding(
            "incident_deadline",
            Severity.CRITICAL,
            f"{len(due)} unresolved security incidents must be notified soon or are late, "
            f"the first by {first:%Y-%m-%d %H:%M} UTC",
            value=float(len(due)),
            threshold=0,
            items=frozenset(incident.incident_id for incident in due),
        )


@condition("dead_letters", reads=["dead_letters"])
def dead_letters(situation: Situation) -> Iterator[Finding]:
    """Tasks failed for good and nobody has looked at them."""
    if situation.dead_letters:
        yield _count(
            "dead_letters", situation.dead_letters, "tasks failed for good; see 'techdeck dead list'"
        )


@condition("interventions", reads=["interventions"])
def interventions(situation: Situation) -> Iterator[Finding]:
    """Tasks wait for a person."""
    if situation.interventions:
        yield _count(
            "interventions",
            situation.interventions,
            "tasks wait for a person; see 'techdeck interventions list'",
        )


@condition("quarantine", reads=["quarantined_messages"])
def quarantine(situation: Situation) -> Iterator[Finding]:
    """Messages came that no worker could read."""
    if situation.quarantined_messages:
        yield _count("quarantine", situation.quarantined_messages, "messages could be read by no worker")


@condition("unknown", reads=[])
def unknown(situation: Situation) -> Iterator[Finding]:
    """Something cannot be found out: silence about it proves nothing."""
    for name in sorted(situation.unknown):
        yield Finding(
            "unknown",
            Severity.WARNING,
            f"{name.replace('_', ' ')} cannot be found out; its alerts stay as they are",
            subject=name,
        )


def _count(alert_type: str, count: int, what: str) -> Finding:
    return Finding(alert_type, Severity.WARNING, f"{count} {what}", value=float(count), threshold=0)
