"""Legal holds: what a court or an investigation needs is neither pruned nor erased."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Engine, and_, insert, select, true, update
from sqlalchemy.engine import Row

from techdeck_tasks.audit.canonical import AuditRecord
from techdeck_tasks.audit.event import AuditTrail, operator_action
from techdeck_tasks.audit.models import AuditEventRow, AuditHold
from techdeck_tasks.audit.period import check_period
from techdeck_tasks.audit.reading.search import BlindIndexes, is_storable
from techdeck_tasks.audit.retention.coverage import HOLD_COVERS, months_with, noted_months
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.redaction import sanitize_message
from techdeck_tasks.storage.database import transaction

HOLD_ADDED, HOLD_RELEASED = "hold_add", "hold_release"
"""Operations on record. Their `outcome`, in the clear for verify, is the hold's id; where it is added, its
fingerprint follows after a space."""

_PERSONS = ("user", "subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldScope:
    """What is held: every row that all of these are true of; a scope of nothing holds the whole log.

    Attributes:
        since: happened at or after, aware.
        until: happened before, aware.
        pipeline_id: of this run.
        user: done by this person; `subject`: about this person. One of the two at most.
    """

    since: datetime | None = None
    until: datetime | None = None
    pipeline_id: str | None = None
    user: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        check_period("a legal hold", self.since, self.until)
        if self.user is not None and self.subject is not None:
            raise ValidationError("a hold names a user or a subject; add one for each", field="subject")
        if self.pipeline_id is not None and not is_storable(self.pipeline_id):
            raise ValidationError(
                "a hold names a run without NUL and lone surrogates: no row has such", field="pipeline_id"
            )


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold as it is stored: persons by their blind indexes alone."""

    hold_id: uuid.UUID
    created_at: datetime
    created_by: str
    reason: str
    occurred_from: datetime | None
    occurred_until: datetime | None
    pipeline_id: str | None
    person_kind: str | None
    person_indexes: tuple[bytes, ...]
    released_at: datetime | None
    released_by: str | None
    release_reason: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Return the hold of a row of `audit_hold`."""
        values = dict(row._mapping)  # noqa: SLF001 - public, in spite of its name
        values["person_indexes"] = tuple(bytes(index) for index in values["person_indexes"] or ())
        return cls(**values)

    @property
    def covers_all_of_a_time(self) -> bool:
        """Whether it holds every row of its time, whatever that is about."""
        return self.pipeline_id is None and self.person_kind is None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over when it was set and what it covers, in hex: a changed hold shows."""
        moments = (self.created_at, self.occurred_from, self.occurred_until)
        persons = sorted(index.hex() for index in self.person_indexes)
        said = [*map(_spelled_utc, moments), self.pipeline_id, self.person_kind, *persons]
        return hashlib.sha256(json.dumps([str(self.hold_id), *said]).encode()).hexdigest()

    def overlaps(self, begin: datetime, end: datetime) -> bool:
        """Tell whether any moment from `begin` to before `end` is of its time."""
        return (self.occurred_from is None or self.occurred_from < end) and (
            self.occurred_until is None or self.occurred_until > begin
        )

    def covers(self, record: AuditRecord) -> bool:
        """Tell whether it holds `record`."""
        at = record.occurred_at
        return (
            (self.occurred_from is None or at >= self.occurred_from)
            and (self.occurred_until is None or at < self.occurred_until)
            and (self.pipeline_id is None or record.pipeline_id == self.pipeline_id)
            and (
                self.person_kind is None
                or getattr(record, f"{self.person_kind}_index") in self.person_indexes
            )
        )

    def rows(self) -> ColumnElement[bool]:
        """Return the condition that it sets to rows of `audit_event`."""
        conditions: list[ColumnElement[bool]] = [true()]
        if self.occurred_from is not None:
            conditions.append(AuditEventRow.occurred_at >= self.occurred_from)
        if self.occurred_until is not None:
            conditions.append(AuditEventRow.occurred_at < self.occurred_until)
        if self.pipeline_id is not None:
            conditions.append(AuditEventRow.pipeline_id == self.pipeline_id)
        if self.person_kind is not None:
            column = AuditEventRow.user_index if self.person_kind == "user" else AuditEventRow.subject_index
            conditions.append(column.in_(self.person_indexes))
        return and_(*conditions)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data, without the blind indexes."""
        return {
            "hold_id": str(self.hold_id),
            "created_at": self.created_at.isoformat(),
            "created_by": self.created_by,
            "reason": self.reason,
            "since": _spelled(self.occurred_from),
            "until": _spelled(self.occurred_until),
            "pipeline_id": self.pipeline_id,
            "person": self.person_kind,
            "active": self.released_at is None,
            "released_at": _spelled(self.released_at),
            "released_by": self.released_by,
            "release_reason": self.release_reason,
        }


class HeldError(ValidationError):
    """A legal hold forbids what was asked for."""

    def __init__(self, what: str, holds: Sequence[Hold]) -> None:
        named = ", ".join(f"{hold.hold_id} ({hold.reason})" for hold in holds[:3])
        more = f" and {len(holds) - 3} more" if len(holds) > 3 else ""  # noqa: PLR2004 - as many as are named
        super().__init__(
            f"{what} is under legal hold {named}{more}; whoever set it may release it with "
            "'techdeck audit hold release'",
            field="hold",
        )


class HoldStore:
    """Holds, as people set and release them; both are on record before they take effect.

    Args:
        engine: the database.
        trail: where actions are recorded.
        clock: the time.
        retention_days: how long those records are kept.
        blind_indexes: finds persons; None refuses holds on them.
    """

    def __init__(
        self,
        engine: Engine,
        trail: AuditTrail,
        clock: Clock,
        retention_days: int,
        blind_indexes: BlindIndexes | None = None,
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._retention_days = retention_days
        self._blind_indexes = blind_indexes

    def add(self, scope: HoldScope, *, reason: str, by: str) -> Hold:
        """Set a hold.

        Raises:
            ValidationError: no reason is given, or a person is named and no blind-index key is at hand.
            AuditUnavailableError: it could not be recorded; nothing is held.
            ServiceUnavailableError: PostgreSQL is away.
        """
        _check_reason(reason)
        kind = next((name for name in _PERSONS if getattr(scope, name) is not None), None)
        indexes: Sequence[bytes] | None = None
        if kind is not None:
            if self._blind_indexes is None:
                raise ValidationError(
                    f"a hold on a {kind} needs the blind-index keys, which are not in TECHDECK_KEYS_DIR",
                    field=kind,
                )
            indexes = self._blind_indexes(kind, getattr(scope, kind))
        hold_id = uuid.uuid4()
        values = {
            "hold_id": hold_id,
            "created_at": self._clock.now(),
            "created_by": by,
            "reason": sanitize_message(reason),
            "occurred_from": scope.since,
            "occurred_until": scope.until,
            "pipeline_id": scope.pipeline_id,
            "person_kind": kind,
            "person_indexes": indexes,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(AuditHold).values(**values))
            stored = select(AuditHold.__table__).where(AuditHold.hold_id == hold_id)
            hold = Hold.of(connection.execute(stored).one())
            # Before the commit and not before the statement: what the database refuses is not on record.
            self._record(HOLD_ADDED, hold, f"{hold_id} {hold.fingerprint}", by, reason)
            self._note_months(connection, hold, set(), by)
        return hold

    def note_months(self, by: str) -> None:
        """Put on record which months the active holds cover by now. Noting some twice is harmless.

        Raises:
            AuditUnavailableError: it could not be recorded.
            ServiceUnavailableError: PostgreSQL is away.
        """
        with transaction(self._engine) as connection:
            noted = noted_months(connection)
            for hold in active_holds(connection):
                self._note_months(connection, hold, noted.get(str(hold.hold_id), set()), by)

    def release(self, hold_id: str, *, reason: str, by: str) -> Hold:
        """End a hold. It stays on record.

        Raises:
            ValidationError: there is no such hold, it was released before, or no reason is given.
            AuditUnavailableError: it could not be recorded; the hold stands.
            ServiceUnavailableError: PostgreSQL is away.
        """
        _check_reason(reason)
        statement = (
            update(AuditHold)
            .where(AuditHold.hold_id == self.get(hold_id).hold_id, AuditHold.released_at.is_(None))
            .values(released_at=self._clock.now(), released_by=by, release_reason=sanitize_message(reason))
            .returning(*AuditHold.__table__.c)
        )
        with transaction(self._engine) as connection:
            released = connection.execute(statement).one_or_none()
            if released is not None:
                hold = Hold.of(released)
                self._record(HOLD_RELEASED, hold, hold_id, by, reason)
                return hold
        by_whom = self.get(hold_id).released_by
        raise ValidationError(f"hold {hold_id} was released by {by_whom} already", field="hold")

    def get(self, hold_id: str) -> Hold:
        """Return a hold.

        Raises:
            ValidationError: there is none of that id.
        """
        for hold in self.search(active=None):
            if str(hold.hold_id) == hold_id:
                return hold
        raise ValidationError(
            f"there is no legal hold {hold_id!r}; see 'techdeck audit hold list'", field="hold"
        )

    def search(self, *, active: bool | None = True) -> list[Hold]:
        """Return the active holds, the released ones, or with None both; the oldest first."""
        with transaction(self._engine) as connection:
            holds = all_holds(connection)
        return [hold for hold in holds if active is None or (hold.released_at is None) == active]

    def _note_months(self, connection: Connection, hold: Hold, noted: set[str], by: str) -> None:
        if hold.covers_all_of_a_time:
            return
        if new := sorted(months_with(connection, hold.rows()) - noted):
            self._record(HOLD_COVERS, hold, " ".join([str(hold.hold_id), *new]), by, hold.reason)

    def _record(self, operation: str, hold: Hold, outcome: str, by: str, reason: str) -> None:
        self._trail.record(
            operator_action(
                "audit",
                operation,
                by,
                {"owner": by, "reason": reason, "hold_id": str(hold.hold_id)},
                severity=Severity.HIGH,
                retention_days=self._retention_days,
                outcome=outcome,
                pipeline_id=hold.pipeline_id,
            )
        )


def all_holds(connection: Connection) -> list[Hold]:
    """Return every hold, the oldest first."""
    statement = select(AuditHold.__table__).order_by(AuditHold.created_at, AuditHold.hold_id)
    return [Hold.of(row) for row in connection.execute(statement)]


def active_holds(connection: Connection) -> list[Hold]:
    """Return the holds that are in force."""
    return [hold for hold in all_holds(connection) if hold.released_at is None]


def holds_on_month(connection: Connection, begin: datetime, end: datetime) -> list[Hold]:
    """Return the holds that forbid to drop the rows from `begin` to before `end`."""
    of_time = and_(AuditEventRow.occurred_at >= begin, AuditEventRow.occurred_at < end)
    return [
        hold
        for hold in active_holds(connection)
        if hold.overlaps(begin, end)
        and (hold.covers_all_of_a_time or _any_row(connection, and_(of_time, hold.rows())))
    ]


def holds_on_keys(connection: Connection, keys: Sequence[uuid.UUID]) -> list[Hold]:
    """Return the holds on rows that these data keys seal."""
    sealed = AuditEventRow.key_id.in_(keys)
    return [hold for hold in active_holds(connection) if _any_row(connection, and_(sealed, hold.rows()))]


def _any_row(connection: Connection, condition: ColumnElement[bool]) -> bool:
    return connection.execute(select(AuditEventRow.event_id).where(condition).limit(1)).first() is not None


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise ValidationError("a legal hold needs a reason; give --reason", field="reason")


def _spelled_utc(moment: datetime | None) -> str | None:
    return None if moment is None else _spelled(moment.astimezone(UTC))


def _spelled(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
