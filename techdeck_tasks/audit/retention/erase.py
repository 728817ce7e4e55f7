"""Erasure: the data keys of documents are destroyed; rows, chains and checkpoints stay as they are."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, not_, select, text, true, update

from techdeck_tasks.audit.canonical import AuditRecord
from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.audit.models import AuditDataKey, AuditEventRow, AuditTombstone
from techdeck_tasks.audit.month import bounds_of
from techdeck_tasks.audit.period import check_period
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.reading.search import BlindIndexes
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.retention.holds import HeldError, Hold, active_holds, holds_on_keys
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.storage.database import transaction

ERASED = "erase"
"""Operation on record. Its `outcome`, in the clear for verify, is how many keys it destroyed, and the SHA-256
over their ids."""

_LOCK_HOLDS = text("SELECT techdeck_audit_lock_holds()")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureScope:
    """Whose documents are erased: those of a tenant, of a time, and of one person where that is named.

    Attributes:
        tenant: whose.
        since: happened at or after, aware.
        until: happened before, aware.
        subject: only documents about this person. Their keys are their own where
            ``TECHDECK_AUDIT_KEYS_PER_SUBJECT`` was set when they were written.
    """

    tenant: str
    since: datetime
    until: datetime
    subject: str | None = None

    def __post_init__(self) -> None:
        check_period("an erasure", self.since, self.until)


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure comes to.

    Attributes:
        keys: data keys that seal documents of the scope alone.
        rows: how many documents they seal.
        shared_keys: data keys that seal other documents too: they stay.
        shared_rows: documents of the scope under those, which stay readable.
    """

    keys: tuple[uuid.UUID, ...]
    rows: int
    shared_keys: int
    shared_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data."""
        return {
            "keys": len(self.keys),
            "rows": self.rows,
            "shared_keys": self.shared_keys,
            "shared_rows": self.shared_rows,
        }


@dataclass(slots=True)
class _Use:
    """How many rows a key seals, of the scope and besides."""

    wanted: int = 0
    others: int = 0


class Eraser:
    """Destroys data keys, in the database and in the backup sink.

    Args:
        engine: the database, as a user with the role `techdeck_audit_keeper` or as the tables' owner.
        trail: where the erasure is recorded, before it takes effect.
        clock: the time.
        retention_days: how long that record is kept.
        blind_indexes: finds a person's rows; None refuses a subject.
        sink: the backup, which holds keys too.
        archive: the months that were dropped; their rows count as well.
    """

    def __init__(
        self,
        engine: Engine,
        trail: AuditTrail,
        clock: Clock,
        retention_days: int,
        *,
        blind_indexes: BlindIndexes | None = None,
        sink: SegmentStore | None = None,
        archive: Archive | None = None,
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._retention_days = retention_days
        self._blind_indexes = blind_indexes
        self._sink = sink
        self._archive = archive

    def plan(self, scope: ErasureScope) -> Erasure:
        """Return what `erase` would do.

        Raises:
            ValidationError: the time is not over before today (UTC), a subject is named without a blind-index
                key, or the archive lacks a month.
            HeldError: a legal hold covers some of it.
            ServiceUnavailableError: PostgreSQL is away.
            OSError: the archive cannot be read.
        """
        with transaction(self._engine) as connection:
            return self._plan(connection, scope)

    def erase(self, scope: ErasureScope, *, reason: str, by: str) -> Erasure:
        """Destroy the keys that seal documents of `scope` alone. It cannot be undone.

        What is interrupted is done again: keys that are gone already count as erased.

        Raises:
            ValidationError: no reason is given, or as `plan`.
            HeldError: a legal hold covers some of it.
            AuditUnavailableError: it could not be recorded; nothing was erased.
            ServiceUnavailableError: PostgreSQL is away.
            OSError: the sink or the archive fails; where the database's keys are gone, call again.
        """
        if not reason.strip():
            raise ValidationError("an erasure needs a reason; give --reason", field="reason")
        with transaction(self._engine) as connection:
            connection.execute(_LOCK_HOLDS)
            erasure = self._plan(connection, scope)
            destroyed = connection.execute(
                update(AuditDataKey)
                .where(AuditDataKey.key_id.in_(erasure.keys), AuditDataKey.erased_at.is_(None))
                .values(sealed_key=b"", erased_at=self._clock.now())
                .returning(AuditDataKey.key_id)
            ).scalars()
            # Before the commit and not before the statement: what the database refuses is not on record.
            self._record(scope, erasure, sorted(destroyed), reason, by)
        if self._sink is not None:
            for key_id in erasure.keys:
                self._sink.forget_key(str(key_id))
        return erasure

    def _plan(self, connection: Connection, scope: ErasureScope) -> Erasure:
        if scope.until > self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0):
            raise ValidationError(
                "an erasure ends before today (UTC): today's keys are still sealing new documents; "
                "choose an earlier 'until'",
                field="until",
            )
        indexes = self._indexes(scope)
        uses = _uses_in_database(connection, scope, indexes)
        holds = active_holds(connection)
        held = self._add_archived(connection, scope, indexes, uses, holds)
        keys = tuple(sorted(key for key, use in uses.items() if use.wanted and not use.others))
        held += [hold for hold in holds_on_keys(connection, keys) if hold not in held]
        if held:
            raise HeldError("what is to be erased", held)
        shared = [use for use in uses.values() if use.wanted and use.others]
        return Erasure(
            keys,
            sum(uses[key].wanted for key in keys),
            len(shared),
            sum(use.wanted for use in shared),
        )

    def _indexes(self, scope: ErasureScope) -> frozenset[bytes] | None:
        if scope.subject is None:
            return None
        if self._blind_indexes is None:
            raise ValidationError(
                "an erasure by subject needs the blind-index keys, which are not in TECHDECK_KEYS_DIR",
                field="subject",
            )
        return frozenset(self._blind_indexes("subject", scope.subject))

    def _add_archived(
        self,
        connection: Connection,
        scope: ErasureScope,
        indexes: frozenset[bytes] | None,
        uses: dict[uuid.UUID, _Use],
        holds: list[Hold],
    ) -> list[Hold]:
        """Count the rows of dropped months in; return the holds on some that are wanted."""
        held: list[Hold] = []
        for month in connection.execute(select(AuditTombstone.month)).scalars():
            if not _may_share_keys(month, scope):
                continue
            if self._archive is None:
                raise ValidationError(
                    f"the month {month:%Y-%m} was archived, and may share keys with what is to be erased; "
                    "set TECHDECK_AUDIT_ARCHIVE_URL",
                    field="audit_archive_url",
                )
            for row in self._archive.rows(month):
                use = uses.setdefault(row.record.key_id, _Use())
                if _wanted(row.record, scope, indexes):
                    use.wanted += 1
                    held += [hold for hold in holds if hold not in held and hold.covers(row.record)]
                else:
                    use.others += 1
        return held

    def _record(
        self, scope: ErasureScope, erasure: Erasure, destroyed: Sequence[uuid.UUID], reason: str, by: str
    ) -> None:
        digest = hashlib.sha256(",".join(map(str, destroyed)).encode()).hexdigest()
        self._trail.record(
            operator_action(
                "audit",
                ERASED,
                by,
                {
                    "message": f"{by}: erase {len(erasure.keys)} data keys",
                    "owner": by,
                    "reason": reason,
                    "tenant": scope.tenant,
                    "since": scope.since.isoformat(),
                    "until": scope.until.isoformat(),
                    **erasure.to_dict(),
                },
                severity=Severity.CRITICAL,
                retention_days=self._retention_days,
                outcome=f"{len(destroyed)} {digest}",
                subject_id=scope.subject,
            )
        )


def _uses_in_database(
    connection: Connection, scope: ErasureScope, indexes: frozenset[bytes] | None
) -> dict[uuid.UUID, _Use]:
    wanted = _condition(scope, indexes)
    keys = select(AuditEventRow.key_id).where(wanted).distinct()
    counted = (
        select(
            AuditEventRow.key_id,
            func.count().filter(wanted).label("wanted"),
            func.count().filter(not_(wanted)).label("others"),
        )
        .where(AuditEventRow.key_id.in_(keys))
        .group_by(AuditEventRow.key_id)
    )
    return {row.key_id: _Use(row.wanted, row.others) for row in connection.execute(counted)}


def _condition(scope: ErasureScope, indexes: frozenset[bytes] | None) -> ColumnElement[bool]:
    # NULL is no other person: the condition must be false and not unknown.
    about = (
        true() if indexes is None else func.coalesce(AuditEventRow.subject_index.in_(indexes), text("false"))
    )
    return and_(
        AuditEventRow.tenant == scope.tenant,
        AuditEventRow.occurred_at >= scope.since,
        AuditEventRow.occurred_at < scope.until,
        about,
    )


def _wanted(record: AuditRecord, scope: ErasureScope, indexes: frozenset[bytes] | None) -> bool:
    return (
        record.tenant == scope.tenant
        and scope.since <= record.occurred_at < scope.until
        and (indexes is None or record.subject_index in indexes)
    )


def _may_share_keys(month: date, scope: ErasureScope) -> bool:
    # Keys change every day; the months around a period are looked at for the sake of older keys.
    begin, end = bounds_of(month)
    around = timedelta(days=31)
    return begin < scope.until + around and end > scope.since - around
