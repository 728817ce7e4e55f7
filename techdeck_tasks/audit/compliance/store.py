"""Reports as they are kept: each with the digest of its bytes, signed off once by a reviewer."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, String, cast, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Row

from techdeck_tasks.audit.compliance.report import LastVerify, generate
from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.audit.review_models import ComplianceReportRow
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.redaction import sanitize_message
from techdeck_tasks.storage.database import transaction

MAX_LISTED = 1000

REPORT_MADE, REPORT_SIGNED = "report.generate", "report.sign_off"
"""Operations on record. Their `outcome`, in the clear for verify, is the report's id and its SHA-256, or the
one of its signature."""


class ReportKind(StrEnum):
    """Why a report was made."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    ON_DEMAND = "on_demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """A report and its sign-off; moments are aware UTC, `period_end` is exclusive."""

    report_id: str
    kind: ReportKind
    period_start: datetime
    period_end: datetime
    generated_at: datetime
    generated_by: str
    sha256: str
    reviewed_at: datetime | None
    reviewed_by: str | None
    review_note: str | None
    text: str = field(repr=False)

    @property
    def document(self) -> dict[str, Any]:
        """The report itself."""
        document: dict[str, Any] = json.loads(self.text)
        return document

    @property
    def unchanged(self) -> bool:
        """Whether the text still has the digest it was stored with."""
        return hashlib.sha256(self.text.encode()).hexdigest() == self.sha256

    @property
    def signature(self) -> str:
        """SHA-256 over the report and who signed it off when with which note, in hex."""
        at = None if self.reviewed_at is None else self.reviewed_at.astimezone(UTC).isoformat()
        said = [self.report_id, self.sha256, at, self.reviewed_by, self.review_note]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Return everything but the report itself, JSON-safe."""
        return {
            "report_id": self.report_id,
            "kind": self.kind.value,
            "period_start": self.period_start.isoformat(),
            "period_end": self.period_end.isoformat(),
            "generated_at": self.generated_at.isoformat(),
            "generated_by": self.generated_by,
            "sha256": self.sha256,
            "unchanged": self.unchanged,
            "reviewed_at": self.reviewed_at and self.reviewed_at.isoformat(),
            "reviewed_by": self.reviewed_by,
            "review_note": self.review_note,
        }


class ReportStore:
    """Makes, finds and signs off reports.

    Args:
        engine: the database.
        trail: where making and signing are recorded before they are done.
        clock: the time.
        retention_days: how long those records are kept.
        last_verify: tells how the log's last verification ended; None: nobody knows.
    """

    def __init__(
        self,
        engine: Engine,
        trail: AuditTrail,
        clock: Clock,
        retention_days: int,
        last_verify: LastVerify | None = None,
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._retention_days = retention_days
        self._last_verify = last_verify

    def generate_compliance_report(
        self, start_date: datetime, end_date: datetime, by: str = "application"
    ) -> dict[str, Any]:
        """Make, store and return the report from `start_date` up to `end_date`, exclusive.

        Raises:
            ValidationError: a time has no zone, or the period is empty, reversed or too long.
            AuditUnavailableError: it cannot be recorded; nothing was stored.
            ServiceUnavailableError: PostgreSQL is away.
        """
        stored = self.make(ReportKind.ON_DEMAND, start_date, end_date, by)
        assert stored is not None, "an on-demand report belongs to no slot that could be taken"
        return stored.document

    def make(self, kind: ReportKind, start: datetime, end: datetime, by: str) -> StoredReport | None:
        """Make and store a report; None where the scheduled one of this period is there already.

        Raises:
            ValidationError, AuditUnavailableError, ServiceUnavailableError: as `generate_compliance_report`.
        """
        scheduled = kind is not ReportKind.ON_DEMAND
        if scheduled and self._is_made(kind, start):
            return None
        document = generate(self._engine, start, end, now=self._clock.now(), last_verify=self._last_verify)
        body = json.dumps(document, separators=(",", ":"))
        digest = hashlib.sha256(body.encode())
        facts = {"report_id": document["report_id"], "kind": kind.value, "sha256": digest.hexdigest()}
        values = {
            "report_id": uuid.UUID(document["report_id"]),
            "kind": kind,
            "period_start": start,
            "period_end": end,
            "generated_at": datetime.fromisoformat(document["generated_at"]),
            "generated_by": by,
            "document": body,
            "sha256": digest.digest(),
        }
        statement = insert(ComplianceReportRow).values(values).on_conflict_do_nothing()
        with transaction(self._engine) as connection:
            made = connection.execute(statement.returning(*ComplianceReportRow.__table__.c)).one_or_none()
            if made is None:
                return None
            # After the insert, which waits for another scheduler in this slot: one report, one record.
            outcome = f"{document['report_id']} {digest.hexdigest()}"
            self._record(REPORT_MADE, by, outcome, **facts)
        return _stored(made)

    def search(self, limit: int = 100, before: tuple[datetime, str] | None = None) -> list[StoredReport]:
        """Return the newest reports, newest first.

        Args:
            limit: 1 to 1000.
            before: `generated_at` and id of the report that the page before ended with.

        Raises:
            ValidationError: `limit` is not 1 to 1000.
            ServiceUnavailableError: PostgreSQL is away.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValidationError(f"reports are listed 1 to {MAX_LISTED} at a time", field="limit")
        newest = ComplianceReportRow.generated_at.desc()
        statement = select(*ComplianceReportRow.__table__.c).order_by(newest, ComplianceReportRow.report_id)
        if before is not None:
            made, after = (
                ComplianceReportRow.generated_at,
                ComplianceReportRow.report_id > uuid.UUID(before[1]),
            )
            statement = statement.where(made <= before[0], (made < before[0]) | after)
        with transaction(self._engine) as connection:
            return [_stored(row) for row in connection.execute(statement.limit(limit))]

    def get(self, report_id: str) -> StoredReport:
        """Return the report with that id, or whose id alone begins so.

        Raises:
            ValidationError: there is none, or several.
            ServiceUnavailableError: PostgreSQL is away.
        """
        begins = cast(ComplianceReportRow.report_id, String).startswith(report_id.lower(), autoescape=True)
        with transaction(self._engine) as connection:
            rows = connection.execute(select(*ComplianceReportRow.__table__.c).where(begins).limit(2)).all()
        if len(rows) != 1:
            what = "there is no report" if not rows else "there are several reports"
            raise ValidationError(
                f"{what} {report_id!r}; 'techdeck report list' shows them", field="report_id"
            )
        return _stored(rows[0])

    def sign_off(
        self, report_id: str, *, reviewer: str, note: str, sha256: str | None = None
    ) -> StoredReport:
        """Put a reviewer's name under a report, once.

        Args:
            report_id: the id, or how it alone begins.
            reviewer: who read it.
            note: what was concluded; kept sealed as it is, and redacted beside the report.
            sha256: the digest of what was read, if it was read elsewhere.

        Raises:
            ValidationError: there is no such report, it was signed before, or it was changed.
            AuditUnavailableError: it cannot be recorded; nothing was signed.
            ServiceUnavailableError: PostgreSQL is away.
        """
        key = ComplianceReportRow.report_id == uuid.UUID(self.get(report_id).report_id)
        with transaction(self._engine) as connection:
            # Locked: of two reviewers at once the second one sees the first one's signature.
            report = _lock(connection, key)
            if report.reviewed_at is not None:
                raise ValidationError(
                    f"report {report.report_id} was signed off by {report.reviewed_by}; that stays",
                    field="report_id",
                )
            if not report.unchanged or sha256 not in {None, report.sha256}:
                raise ValidationError(
                    f"report {report.report_id} is not the one that was stored or read: its SHA-256 differs; "
                    "find out who changed it, and generate a new one",
                    field="sha256",
                )
            values = {
                "reviewed_at": self._clock.now(),
                "reviewed_by": reviewer,
                "review_note": sanitize_message(note),
            }
            signed = connection.execute(
                update(ComplianceReportRow)
                .where(key)
                .values(values)
                .returning(*ComplianceReportRow.__table__.c)
            )
            stored = _stored(signed.one())
            # Before the commit and not before the statement: what the database refuses is not on record.
            facts = {"report_id": report.report_id, "sha256": report.sha256, "note": note}
            self._record(REPORT_SIGNED, reviewer, f"{report.report_id} {stored.signature}", **facts)
            return stored

    def _is_made(self, kind: ReportKind, start: datetime) -> bool:
        made = select(ComplianceReportRow.report_id).where(
            ComplianceReportRow.kind == kind, ComplianceReportRow.period_start == start
        )
        with transaction(self._engine) as connection:
            return connection.execute(made).first() is not None

    def _record(self, operation: str, by: str, outcome: str, **facts: Any) -> None:
        self._trail.record(
            operator_action(
                "compliance",
                operation,
                by,
                facts,
                severity=Severity.LOW,
                retention_days=self._retention_days,
                outcome=outcome,
            )
        )


def _lock(connection: Connection, key: Any) -> StoredReport:
    statement = select(*ComplianceReportRow.__table__.c).where(key).with_for_update()
    return _stored(connection.execute(statement).one())


def _stored(row: Row[Any]) -> StoredReport:
    return stored_report(row, row.document)


def stored_report(row: Row[Any], body: str) -> StoredReport:
    """Return the report of a row of `compliance_report` whose document is `body`."""
    return StoredReport(
        report_id=str(row.report_id),
        kind=ReportKind(row.kind),
        period_start=row.period_start,
        period_end=row.period_end,
        generated_at=row.generated_at,
        generated_by=row.generated_by,
        sha256=bytes(row.sha256).hex(),
        reviewed_at=row.reviewed_at,
        reviewed_by=row.reviewed_by,
        review_note=row.review_note,
        text=body,
    )
