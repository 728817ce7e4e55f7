"""Whether the compliance reports and their sign-offs are those that the log tells of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from techdeck_tasks.audit.compliance.store import REPORT_MADE, REPORT_SIGNED, stored_report
from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.month import bounds_of
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.tombstone import Tombstone

_REPORTS = "compliance_report"

# Digests are computed here from what is stored. A time that Python does not know is none that was recorded.
_THERE = text("""
    SELECT report_id, kind, generated_by, reviewed_by, review_note, period_start, period_end,
        CASE WHEN generated_at BETWEEN '0001-01-02' AND '9999-12-30' THEN generated_at END AS generated_at,
        CASE WHEN reviewed_at BETWEEN '0001-01-02' AND '9999-12-30' THEN reviewed_at END AS reviewed_at,
        sha256(convert_to(document, 'UTF8')) AS sha256,
        generated_at NOT BETWEEN now() - CAST(:settling AS interval) AND now() AS made_is_due,
        reviewed_by IS NOT NULL
            AND reviewed_at NOT BETWEEN now() - CAST(:settling AS interval) AND now() AS signed_is_due
    FROM compliance_report ORDER BY report_id
""")
_TOLD_OF = text("""
    SELECT operation, outcome, recorded_at < now() - interval '1 minute' AS settled FROM audit_event
    WHERE event_type = :event_type AND service = 'compliance' AND operation IN (:made, :signed)
    ORDER BY outcome
""")


def check_reports(
    connection: Connection, tombstones: Sequence[Tombstone], settling: timedelta
) -> Iterator[Finding]:
    """Yield the reports that were changed, forged or removed, and the sign-offs that were.

    Args:
        connection: the snapshot to look at.
        tombstones: the valid ones; what was done in a dropped month was recorded there.
        settling: a record may arrive so much later than its report.
    """
    dropped = [bounds_of(tombstone.month) for tombstone in tombstones]

    def recorded_elsewhere(at: datetime | None) -> bool:
        return at is not None and any(begin <= at < end for begin, end in dropped)

    facts = {"event_type": EventType.OPERATOR_ACTION.value, "made": REPORT_MADE, "signed": REPORT_SIGNED}
    told_of = connection.execute(_TOLD_OF, facts).all()
    made, signed = (
        {row.outcome for row in told_of if row.operation == operation}
        for operation in (REPORT_MADE, REPORT_SIGNED)
    )
    there, signatures = set(), set()
    for row in connection.execute(_THERE, {"settling": settling}):
        report = stored_report(row, "")
        there.add(report.report_id)
        told = f"{report.report_id} {report.sha256}" in made
        if row.made_is_due and not told and not recorded_elsewhere(row.generated_at):
            detail = f"report {report.report_id} is not one that the log tells of"
            yield Finding(Verdict.REPORT_CHANGED, _REPORTS, detail)
        signature = f"{report.report_id} {report.signature}"
        signatures.add(signature)
        if row.signed_is_due and signature not in signed and not recorded_elsewhere(row.reviewed_at):
            detail = f"report {report.report_id} is signed off, and the log does not tell of that signature"
            yield Finding(Verdict.REPORT_CHANGED, _REPORTS, detail)
    for row in told_of:
        report_id = (row.outcome or "").partition(" ")[0]
        if not row.settled:
            continue
        if report_id not in there:
            detail = f"the log tells of report {report_id}; it is not there"
            yield Finding(Verdict.REPORT_CHANGED, _REPORTS, detail)
        elif row.operation == REPORT_SIGNED and row.outcome not in signatures:
            detail = f"the log tells of a signature under report {report_id}; it is not there"
            yield Finding(Verdict.REPORT_CHANGED, _REPORTS, detail)
