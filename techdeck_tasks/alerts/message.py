"""What people read. Codes, counts and names alone; redacted nevertheless, for names are anybody's."""

from __future__ import annotations

from techdeck_tasks.alerts.state import Alert, Notice
from techdeck_tasks.redaction import sanitize_message

_LEAD = {
    Notice.FIRING: "{severity}",
    Notice.REMINDER: "STILL {severity}",
    Notice.ESCALATION: "NOBODY REACTED, {severity}",
    Notice.RESOLVED: "RESOLVED",
}


def render(alert: Alert, notice: Notice, tenant: str) -> tuple[str, str]:
    """Return title and body of a notice."""
    lead = _LEAD[notice].format(severity=alert.severity.upper())
    title = sanitize_message(f"[{tenant}] {lead}: {alert.key}")
    lines = [sanitize_message(alert.message)]
    if alert.value is not None and alert.threshold is not None:
        lines.append(f"value {alert.value:g}, threshold {alert.threshold:g}")
    lines.append(f"since {alert.first_seen:%Y-%m-%d %H:%M:%S} UTC")
    if alert.resolved_at is not None:
        lines.append(f"until {alert.resolved_at:%Y-%m-%d %H:%M:%S} UTC")
    else:
        lines.append(f"techdeck alerts acknowledge {alert.alert_id}")
    return title, "\n".join(lines)
