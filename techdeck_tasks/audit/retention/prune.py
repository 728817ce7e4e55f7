"""Dropping months that are past their retention: archived first, accounted for by a signed tombstone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, insert, text

from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.audit.models import AuditTombstone
from techdeck_tasks.audit.month import bounds_of, first_day_of
from techdeck_tasks.audit.proof.checkpoint import PARTITIONS, Checkpoint
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.tombstone import Tombstone, row_of
from techdeck_tasks.audit.retention.archive import Archive, Archived
from techdeck_tasks.audit.retention.holds import HeldError, Hold, holds_on_month
from techdeck_tasks.audit.row_document import DiffersError
from techdeck_tasks.audit.writing.writer import MAX_AGE, MAX_CLOCK_SKEW
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import ServiceUnavailableError, Severity, TechDeckError, ValidationError
from techdeck_tasks.storage.database import transaction

logger = logging.getLogger(__name__)

OVERDUE_AFTER = timedelta(days=3)
"""Beat asks once a day: a month that is due for longer was tried several times, or never."""

_LOCK_TIMEOUT_S = 5
"""Who waits for the lock on the log holds up everybody behind: a reader in the way has another day."""

# The first row that must stay ends it, and in a month that is not due that is one of the first. In seconds:
# the largest retention is beyond PostgreSQL's calendar.
_EXPIRED = text("""
    SELECT (:expired_if_empty OR EXISTS (
        SELECT FROM audit_event WHERE occurred_at >= :begin AND occurred_at < :end
    )) AND NOT EXISTS (
        SELECT FROM audit_event WHERE occurred_at >= :begin AND occurred_at < :end
        AND extract(epoch FROM occurred_at) + CAST(retention_days AS bigint) * 86400
            > extract(epoch FROM CAST(:now AS timestamptz))
    )
""")
# Until the end of the transaction no other process drops a month: what is found to be there stays there. A
# month that vanished in between would be archived without its rows, over the archive that has them.
_KEEP_MONTHS = text("LOCK TABLE audit_event IN ACCESS SHARE MODE")
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(7236589410023)")
_ENDS = text("""
    SELECT writer_id, max(writer_seq) AS last FROM audit_event
    WHERE occurred_at >= :begin AND occurred_at < :end GROUP BY writer_id
""")
_NEWEST_CHECKPOINT = text("""
    SELECT statement FROM audit_checkpoint ORDER BY checkpoint_seq DESC LIMIT 1
""")
# The segments that hold the month's rows, with an hour for clocks that differ.
_SEGMENTS = text("""
    WITH month AS (
        SELECT min(recorded_at) - interval '1 hour' AS first, max(recorded_at) + interval '1 hour' AS last
        FROM audit_event WHERE occurred_at >= :begin AND occurred_at < :end
    )
    SELECT checkpoint_seq FROM audit_checkpoint, month
    WHERE made_at >= month.first AND checkpoint_seq <= coalesce(
        (SELECT min(checkpoint_seq) FROM audit_checkpoint WHERE made_at >= month.last), checkpoint_seq)
""")
_ROWS = text("SELECT count(*) FROM audit_event WHERE occurred_at >= :begin AND occurred_at < :end")
_CLOSE = text("SELECT techdeck_audit_close_month(CAST(:month AS date))")
_DROP = text("SELECT techdeck_audit_drop_month(CAST(:month AS date))")


@dataclass(frozen=True, slots=True)
class DueMonth:
    """A month whose retention is over: how many rows it has, and the holds that keep it."""

    month: date
    rows: int
    holds: tuple[Hold, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data."""
        held_by = [str(hold.hold_id) for hold in self.holds]
        return {"month": f"{self.month:%Y-%m}", "rows": self.rows, "held_by": held_by}


class Pruner:
    """Archives and drops months.

    A month is archived, its archive read back and recomputed; then, in one transaction, it is surveyed under
    a lock, its tombstone signed and stored, and its partitions dropped. Whatever is interrupted is done again
    from the beginning; nothing is dropped whose archive was not read.

    A month is never dropped within `MAX_AGE` of its end: a spool may still hold events of it.

    Args:
        engine: the database, as a user with the role `techdeck_audit_keeper` or as the tables' owner.
        archive: where months go; None refuses to prune.
        signer: returns what signs tombstones.
        trail: where the pruning is recorded, before it is done.
        sink: the backup, whose segments need the rows; None where there is none.
        clock: the time.
        retention_days: of the record, and of a month without rows.
    """

    def __init__(
        self,
        engine: Engine,
        archive: Archive | None,
        signer: Callable[[], Signer],
        trail: AuditTrail,
        clock: Clock,
        *,
        retention_days: int,
        sink: SegmentStore | None = None,
    ) -> None:
        self._engine = engine
        self._archive = archive
        self._signer = signer
        self._trail = trail
        self._clock = clock
        self._retention_days = retention_days
        self._sink = sink
        self._known_overdue: set[date] = set()

    def due(self) -> list[DueMonth]:
        """Return the months whose rows are all past their retention, the oldest first.

        Raises:
            ServiceUnavailableError: PostgreSQL is away.
        """
        now = self._clock.now()
        with transaction(self._engine) as connection:
            return [
                DueMonth(
                    month, _count(connection, month), tuple(holds_on_month(connection, *bounds_of(month)))
                )
                for month in _months(connection)
                if self._is_due(connection, month, now)
            ]

    def overdue(self) -> list[date]:
        """Return the months that should have been dropped days ago and that no hold keeps, the oldest first.

        Cheap enough to be asked every minute: such a month takes no rows any more, and is read through once.

        Raises:
            ServiceUnavailableError: PostgreSQL is away.
        """
        now = self._clock.now() - OVERDUE_AFTER
        with transaction(self._engine) as connection:
            overdue = [
                month
                for month in _months(connection)
                if _is_closed(month, now)
                and not holds_on_month(connection, *bounds_of(month))
                and (month in self._known_overdue or self._is_due(connection, month, now))
            ]
        self._known_overdue.update(overdue)
        return overdue

    def prune_due(self, by: str) -> list[Tombstone]:
        """Drop every month that is due and not held, the oldest first; return their tombstones.

        A month that cannot be dropped stops no other.

        Raises:
            TechDeckError, OSError: as `prune` of the first month that stays; the others are done.
        """
        tombstones = []
        failure: TechDeckError | OSError | None = None
        for due in self.due():
            if due.holds:
                continue
            try:
                tombstones.append(self.prune(due.month, by))
            except (TechDeckError, OSError) as error:
                logger.error("audit month %s stays: %s", f"{due.month:%Y-%m}", error)  # noqa: TRY400 - expected
                failure = failure or error
        if failure is not None:
            raise failure
        return tombstones

    def prune(self, month: date, by: str, *, despite_sink: str | None = None) -> Tombstone:
        """Archive and drop one month.

        Args:
            month: any day of it.
            by: who decides.
            despite_sink: why it is dropped though the backup sink lost segments of its time; on record with
                their numbers. None: then it stays.

        Raises:
            ValidationError: the month is not there or not due, there is no archive, a row does not fit its
                hash, or rows are under no checkpoint or not in the backup sink yet.
            HeldError: a legal hold covers it.
            AuditUnavailableError: the pruning could not be recorded; nothing was dropped.
            ServiceUnavailableError: PostgreSQL is away or the log is being read, or the month has changed
                meanwhile; nothing was dropped. Try again.
            OSError: the archive cannot be written or read; nothing was dropped.
        """
        archive = self._archive
        if archive is None:
            raise ValidationError(
                "a month is dropped only after it was archived; set TECHDECK_AUDIT_ARCHIVE_URL",
                field="audit_archive_url",
            )
        with transaction(self._engine) as connection:
            self._check_droppable(connection, month)
            self._check_signed(connection, month)
            lacking = self._lacking_segments(connection, month)
            if lacking and despite_sink is None:
                raise ValidationError(
                    f"the backup sink lacks {len(lacking)} segments of the time of {month:%Y-%m}; see that "
                    "an audit worker runs and reaches it, or drop the month without those that are lost "
                    "for good, with --despite-sink",
                    field="audit_sink_url",
                )
            archived = archive.write(connection, month)
        self._check_archive(archive, month, archived)
        facts = {"despite_sink": despite_sink, "lacking_segments": lacking} if lacking else {}
        self._record(month, archived, by, facts)
        with transaction(self._engine) as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
            connection.execute(_ONE_AT_A_TIME)
            _check_there(connection, month)
            connection.execute(_CLOSE, {"month": month})
            # Once more, now that neither row nor hold can be added.
            self._check_droppable(connection, month)
            tombstone = Tombstone.survey(
                connection, month, archive_digest=archived.digest, made_at=self._clock.now(), made_by=by
            )
            if tombstone.rows != archived.rows:
                raise ServiceUnavailableError(
                    f"the audit log's month {month:%Y-%m} got rows while it was archived; try again",
                    service_name="postgresql",
                )
            signed = self._signer().sign(tombstone.encode())
            connection.execute(insert(AuditTombstone).values(**row_of(tombstone, signed)))
            # Before the month is gone; one of a month that stays is written anew by the next attempt.
            archive.write_tombstone(month, signed)
            connection.execute(_DROP, {"month": tombstone.month})
        logger.info("audit month %s archived and dropped, %d rows", f"{month:%Y-%m}", tombstone.rows)
        return tombstone

    def _check_droppable(self, connection: Connection, month: date) -> None:
        connection.execute(_KEEP_MONTHS)
        _check_there(connection, month)
        if not self._is_due(connection, month, self._clock.now()):
            raise ValidationError(
                f"the audit log's month {month:%Y-%m} has rows whose retention is not over, or is younger "
                f"than {MAX_AGE.days} days; see 'techdeck audit prune --dry-run'",
                field="month",
            )
        if holds := holds_on_month(connection, *bounds_of(month)):
            raise HeldError(f"the audit log's month {month:%Y-%m}", holds)

    def _is_due(self, connection: Connection, month: date, now: datetime) -> bool:
        if not _is_closed(month, now):
            return False
        begin, end = bounds_of(month)
        expired_if_empty = end + timedelta(days=self._retention_days) <= now
        parameters = {"begin": begin, "end": end, "now": now, "expired_if_empty": expired_if_empty}
        return bool(connection.execute(_EXPIRED, parameters).scalar_one())

    def _check_signed(self, connection: Connection, month: date) -> None:
        newest = connection.execute(_NEWEST_CHECKPOINT).scalar()
        heads = Checkpoint.decode(newest).heads if newest is not None else ()
        signed = {head.writer_id: head.seq for head in heads}
        begin, end = bounds_of(month)
        ends = connection.execute(_ENDS, {"begin": begin, "end": end})
        if any(row.last > signed.get(row.writer_id, 0) for row in ends):
            raise ValidationError(
                f"the audit log's month {month:%Y-%m} has rows under no checkpoint yet; see that an audit "
                "worker runs",
                field="month",
            )

    def _lacking_segments(self, connection: Connection, month: date) -> list[int]:
        if self._sink is None:
            return []
        begin, end = bounds_of(month)
        segments = connection.execute(_SEGMENTS, {"begin": begin, "end": end}).scalars()
        return sorted(set(segments) - self._sink.numbers())

    def _check_archive(self, archive: Archive, month: date, archived: Archived) -> None:
        try:
            rows = sum(1 for _ in archive.rows(month))
        except DiffersError as error:
            raise ValidationError(
                f"the audit log's month {month:%Y-%m} {error}; run 'techdeck audit verify'", field="month"
            ) from None
        if rows != archived.rows or archive.digest(month) != archived.digest:
            raise ServiceUnavailableError(
                f"the archive of {month:%Y-%m} does not read as it was written; look at the storage behind "
                "TECHDECK_AUDIT_ARCHIVE_URL",
                service_name="audit_archive",
            )

    def _record(self, month: date, archived: Archived, by: str, facts: dict[str, Any]) -> None:
        self._trail.record(
            operator_action(
                "audit",
                "prune",
                by,
                {
                    "message": f"{by}: prune {month:%Y-%m}",
                    "owner": by,
                    "rows": archived.rows,
                    "archive_sha256": archived.digest.hex(),
                    **facts,
                },
                severity=Severity.HIGH,
                retention_days=self._retention_days,
                outcome=f"{month:%Y-%m}",
            )
        )


def _check_there(connection: Connection, month: date) -> None:
    if first_day_of(month) not in _months(connection):
        raise ValidationError(f"the audit log has no month {month:%Y-%m}", field="month")


def _is_closed(month: date, now: datetime) -> bool:
    # Until then a spool may still hold events of it.
    return bounds_of(month)[1] + MAX_AGE + MAX_CLOCK_SKEW <= now


def _months(connection: Connection) -> list[date]:
    names = connection.execute(PARTITIONS).scalars()
    return [date(int(name[:4]), int(name[4:]), 1) for name in names]


def _count(connection: Connection, month: date) -> int:
    begin, end = bounds_of(month)
    return int(connection.execute(_ROWS, {"begin": begin, "end": end}).scalar_one())
