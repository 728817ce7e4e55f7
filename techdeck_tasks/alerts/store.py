"""Alerts and silences as operators see and change them."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, String, cast, insert, tuple_, update

from techdeck_tasks.alerts.models import AlertRow, AlertSilenceRow
from techdeck_tasks.alerts.outbox import Outbox
from techdeck_tasks.alerts.record import AlertRecord
from techdeck_tasks.alerts.silence import Silence
from techdeck_tasks.alerts.state import Alert, AlertState
from techdeck_tasks.alerts.statements import (
    ALERTS,
    SILENCES,
    alert_of,
    silence_of,
    silences_at,
    watched_since,
)
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.storage.database import transaction

MAX_LISTED = 1000


class AlertStore:
    """Reads alerts, and takes operators' decisions, each of which is recorded before it takes effect.

    Every method raises ServiceUnavailableError where PostgreSQL is away.

    Args:
        engine: the database.
        record: the audit log.
        clock: the time of decisions.
    """

    def __init__(self, engine: Engine, record: AlertRecord, clock: Clock) -> None:
        self._engine = engine
        self._record = record
        self._clock = clock
        self._outbox = Outbox(engine, clock)

    def search(self, *, resolved: bool = False, limit: int = 100) -> list[Alert]:
        """Return alerts, the one seen last first.

        Args:
            resolved: also those that are over.
            limit: 1 to 1000.

        Raises:
            ValidationError: `limit` is out of its bounds.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValidationError(f"alerts are listed 1 to {MAX_LISTED} at a time", field="limit")
        wanted = ALERTS if resolved else ALERTS.where(AlertRow.state != AlertState.RESOLVED)
        with transaction(self._engine) as connection:
            found = connection.execute(wanted.order_by(AlertRow.last_seen.desc(), AlertRow.key).limit(limit))
            return [alert_of(row) for row in found]

    def page(self, *, resolved: bool, limit: int, before: tuple[datetime, str] | None = None) -> list[Alert]:
        """Return a page of alerts, the one seen last first.

        Args:
            resolved: those that are over; else those that are not, which each evaluation moves to the top.
            limit: at most so many.
            before: `last_seen` and id of the alert that the page before ended with.
        """
        over = AlertRow.state == AlertState.RESOLVED
        wanted = ALERTS.where(over if resolved else ~over)
        if before is not None:
            moment, alert_id = before
            earlier = tuple_(AlertRow.last_seen, AlertRow.alert_id) < tuple_(moment, uuid.UUID(alert_id))
            wanted = wanted.where(earlier)
        wanted = wanted.order_by(AlertRow.last_seen.desc(), AlertRow.alert_id.desc()).limit(limit)
        with transaction(self._engine) as connection:
            return [alert_of(row) for row in connection.execute(wanted)]

    def watched_since(self) -> datetime | None:
        """Return when alerts were first evaluated; None: never yet."""
        with transaction(self._engine) as connection:
            return watched_since(connection)

    def get(self, alert_id: str) -> Alert:
        """Return the alert with that id, or whose id alone begins so.

        Raises:
            ValidationError: there is none, or several.
        """
        with transaction(self._engine) as connection:
            return alert_of(_only(connection, ALERTS, AlertRow.alert_id, alert_id, "alert"))

    def deliveries(self, alert: Alert) -> list[dict[str, Any]]:
        """Return what became of each notice of `alert`, JSON-safe: notice, channel, state, attempts ..."""
        return self._outbox.of_alert(alert.alert_id)

    def acknowledge(self, alert_id: str, *, by: str, reason: str) -> Alert:
        """Take charge of an alert: no more reminders, no escalation.

        Raises:
            ValidationError: there is no such alert, it is over, or somebody has taken charge.
            AuditUnavailableError: it cannot be recorded; nothing was changed.
        """
        with transaction(self._engine) as connection:
            # Locked: of two at once the second one sees who was first.
            wanted = ALERTS.with_for_update()
            alert = alert_of(_only(connection, wanted, AlertRow.alert_id, alert_id, "alert"))
            if alert.state is AlertState.RESOLVED or alert.acknowledged_by is not None:
                what = f"acknowledged by {alert.acknowledged_by}" if alert.acknowledged_by else "over"
                raise ValidationError(f"alert {alert.alert_id} is {what} already", field="alert_id")
            facts = {"alert_id": str(alert.alert_id), "key": alert.key, "reason": reason}
            self._record.decided("alerts.acknowledge", by, **facts)
            change = {"acknowledged_by": by, "acknowledged_at": self._clock.now()}
            mine = AlertRow.alert_id == alert.alert_id
            connection.execute(update(AlertRow).where(mine).values(change))
        return self.get(str(alert.alert_id))

    # -- silences ----------------------------------------------------------------------------------

    def silences(self) -> list[Silence]:
        """Return the silences that hold."""
        with transaction(self._engine) as connection:
            return silences_at(connection, self._clock.now())

    def silence(
        self, *, alert_type: str | None, subject: str | None, period: timedelta, by: str, reason: str
    ) -> Silence:
        """Let nobody be told of certain alerts for a time.

        Args:
            alert_type: only alerts of this type; None: of any.
            subject: only alerts of this subject; None: of any, but not with `alert_type` None.
            period: how long from now.
            by: who decides.
            reason: why.

        Raises:
            ValidationError: it would match everything, or the time is not positive.
            AuditUnavailableError: it cannot be recorded; nothing was changed.
        """
        if alert_type is None and subject is None:
            raise ValidationError("a silence needs an alert type or a subject", field="alert_type")
        if period <= timedelta(0):
            raise ValidationError("a silence must last longer than nothing", field="period")
        now = self._clock.now()
        silence = Silence(
            silence_id=uuid.uuid4(),
            alert_type=alert_type,
            subject=subject,
            owner=by,
            reason=reason,
            created_at=now,
            until=now + period,
        )
        self._record.decided("alerts.silence", by, **silence.to_dict())
        with transaction(self._engine) as connection:
            connection.execute(insert(AlertSilenceRow).values(asdict(silence)))
        return silence

    def unsilence(self, silence_id: str, *, by: str, reason: str) -> Silence:
        """End a silence now; what still fires is told at the next evaluation.

        Raises:
            ValidationError: there is no such silence, or it is over.
            AuditUnavailableError: it cannot be recorded; nothing was changed.
        """
        now = self._clock.now()
        key = AlertSilenceRow.silence_id
        with transaction(self._engine) as connection:
            silence = silence_of(_only(connection, SILENCES.with_for_update(), key, silence_id, "silence"))
            if silence.until <= now:
                raise ValidationError(f"silence {silence.silence_id} is over already", field="silence_id")
            facts = {"silence_id": str(silence.silence_id), "reason": reason}
            self._record.decided("alerts.unsilence", by, **facts)
            connection.execute(update(AlertSilenceRow).where(key == silence.silence_id).values(until=now))
        return silence


def _only(connection: Connection, rows: Select[Any], key: Any, begins: str, what: str) -> Row[Any]:
    matching = cast(key, String).startswith(begins.lower(), autoescape=True)
    found = connection.execute(rows.where(matching).limit(2)).all()
    if len(found) != 1:
        many = "there is no" if not found else "there is more than one"
        raise ValidationError(
            f"{many} {what} {begins!r}; 'techdeck alerts list' shows them", field=f"{what}_id"
        )
    return found[0]
