"""Which HIPAA safeguards the log supports, and what in a period's figures is the evidence.

A report supports a safeguard; it never states compliance, which depends on people and places as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from techdeck_tasks.audit.compliance.figures import Tally

REMEDIATION = (
    "Review access controls and permissions",
    "Audit data handling procedures",
    "Update security configurations",
    "Conduct staff training on HIPAA compliance",
)
"""The specification's, for any HIPAA-related error."""

_BY_CODE = {
    "AUTH_ERROR": "Look into failed authentications: revoke or rotate credentials that are shared or leaked",
    "AUTHZ_ERROR": "Compare each refused access with the person's role: 45 CFR 164.308(a)(4)",
    "ENCRYPTION_ERROR": "Check the keys and their rotation; run 'techdeck audit verify'",
    "HIPAA_COMPLIANCE_ERROR": "Judge each violation as a possible breach: 45 CFR 164.402",
    "DATA_PROCESSING_ERROR": "Check whether failed processing left data where it does not belong",
}


def remediation_actions(tally: Tally) -> list[str]:
    """Return what to do: the specification's actions, then one for each code that occurred."""
    occurred = [code for code, count in tally.codes.items() if count.hipaa]
    return [*REMEDIATION, *(_BY_CODE[code] for code in occurred if code in _BY_CODE)] if occurred else []


def control_mapping(
    tally: Tally, incidents: Mapping[str, Any], verified: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """Return, section by section of 45 CFR, what the software does for it and the evidence in this period."""
    events = tally.event_types
    total = sum(events.values())
    reads = events.get("audit_read", 0)
    actions = events.get("operator_action", 0)
    return [
        _control(
            "164.308(a)(1)(ii)(D)",
            "Information system activity review",
            "This report, with a reviewer's sign-off that is itself on record",
            f"{tally.errors.total:,} errors reviewed, {tally.errors.hipaa:,} of them HIPAA-related",
        ),
        _control(
            "164.308(a)(6)(ii)",
            "Response and reporting",
            "Security errors become incidents with an investigation and a deadline",
            f"{incidents['discovered']:,} incidents discovered; {incidents['unresolved_now']:,} unresolved, "
            f"{incidents['overdue_now']:,} overdue when the report was made",
        ),
        _control(
            "164.312(a)(2)(iv)",
            "Encryption and decryption",
            "Documents are sealed with AES-256-GCM where they arise; only readers hold the private key",
            f"{total:,} events stored sealed",
        ),
        _control(
            "164.312(b)",
            "Audit controls",
            "Every error, operator's action and reading is recorded with who, what and when",
            f"{total:,} events, among them {actions:,} operators' actions and {reads:,} reads",
        ),
        _control(
            "164.312(c)(1)",
            "Integrity",
            "Hash chains, recomputed by 'techdeck audit verify'",
            "no result of verify at hand" if verified is None else _verdict(verified),
        ),
        _control(
            "164.312(d)",
            "Person or entity authentication",
            "Each reading names its reader and is recorded before any plaintext is shown",
            f"{reads:,} reads on record",
        ),
        _control(
            "164.316(b)(2)(i)",
            "Retention",
            "Rows are append-only and kept for six years by default",
            f"{total:,} events of this period present",
        ),
        _control(
            "164.404(b)",
            "Timeliness of notification",
            "Each incident carries the sixtieth day after its discovery",
            f"unresolved after that day: {incidents['overdue_now']:,}",
        ),
    ]


def _control(section: str, title: str, support: str, evidence: str) -> dict[str, str]:
    return {"section": f"45 CFR {section}", "title": title, "support": support, "evidence": evidence}


def _verdict(verified: Mapping[str, Any]) -> str:
    found = "no findings" if verified["ok"] else f"{verified['findings']} FINDINGS"
    return f"{verified['rows']:,} rows verified at {verified['verified_at']}: {found}"
