"""Notices on their way: written with the alert in one transaction, sent after it, tried until accepted.

A sender first moves a delivery's next attempt on and commits, and only then sends. So no two send the same
one, and what a sender that died had in hand is sent again later: at least once, never not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, text, update

from techdeck_tasks.alerts.models import AlertDeliveryRow, AlertRow
from techdeck_tasks.alerts.state import Alert, Notice
from techdeck_tasks.alerts.statements import ALERTS, alert_of
from techdeck_tasks.clock import Clock
from techdeck_tasks.storage.database import transaction

MAX_ATTEMPTS = 10
"""With the doubling delay the last one is more than five hours after the first."""

_CLAIM = text("""
    UPDATE alert_delivery SET attempts = attempts + 1,
        next_attempt_at = :now + least(interval '1 minute' * power(2, least(attempts, 6)), interval '1 hour')
    WHERE delivery_id = (
        SELECT delivery_id FROM alert_delivery
        WHERE state = 'pending' AND next_attempt_at <= :now AND NOT channel = ANY(:resting)
        ORDER BY next_attempt_at, created_at LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING delivery_id, alert_id, notice, channel, attempts, items
""")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice to be sent now. `attempts` counts this one; `items` is what it tells of."""

    delivery_id: uuid.UUID
    alert: Alert
    notice: Notice
    channel: str
    attempts: int
    items: tuple[str, ...]

    @property
    def last_attempt(self) -> bool:
        """Whether it is given up if this attempt fails too."""
        return self.attempts >= MAX_ATTEMPTS


class Outbox:
    """The deliveries in the database. Every method raises ServiceUnavailableError where it is away."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def claim(self, resting: Collection[str]) -> Delivery | None:
        """Return the delivery that is due longest, which is now this caller's for a minute or more.

        Args:
            resting: channels to leave alone for now.
        """
        values = {"now": self._clock.now(), "resting": list(resting)}
        with transaction(self._engine) as connection:
            row = connection.execute(_CLAIM, values).first()
            if row is None:
                return None
            alert = alert_of(connection.execute(ALERTS.where(AlertRow.alert_id == row.alert_id)).one())
        notice = Notice(row.notice)
        return Delivery(row.delivery_id, alert, notice, row.channel, row.attempts, tuple(row.items))

    def accepted(self, delivery: Delivery) -> None:
        """Note that the channel took it."""
        now = self._clock.now()
        first = func.coalesce(AlertRow.notified_at, now)
        with transaction(self._engine) as connection:
            _settle(connection, delivery, state="delivered", delivered_at=now, problem=None)
            mine = AlertRow.alert_id == delivery.alert.alert_id
            connection.execute(update(AlertRow).where(mine).values(notified_at=first))

    def refused(self, delivery: Delivery, problem: str, *, for_good: bool) -> None:
        """Note why the channel did not take it, and whether that is the end."""
        with transaction(self._engine) as connection:
            _settle(connection, delivery, state="failed" if for_good else "pending", problem=problem)

    def of_alert(self, alert_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return what became of each notice of an alert, oldest first, JSON-safe."""
        table = AlertDeliveryRow
        columns = (table.notice, table.channel, table.state, table.attempts, table.created_at)
        found = select(*columns, table.delivered_at, table.problem).where(table.alert_id == alert_id)
        with transaction(self._engine) as connection:
            rows = connection.execute(found.order_by(table.created_at, table.channel)).mappings().all()
        return [
            {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows
        ]


def queue(
    connection: Connection, alert: Alert, notice: Notice, channels: Iterable[str], now: datetime
) -> None:
    """Write a delivery to each of `channels`; what still waits there of the same alert is superseded."""
    names = list(channels)
    if not names:
        return
    waiting = (
        AlertDeliveryRow.alert_id == alert.alert_id,
        AlertDeliveryRow.channel.in_(names),
        AlertDeliveryRow.state == "pending",
    )
    connection.execute(update(AlertDeliveryRow).where(*waiting).values(state="superseded"))
    row = {
        "alert_id": alert.alert_id,
        "notice": notice,
        "state": "pending",
        "attempts": 0,
        "items": sorted(alert.items),
        "created_at": now,
        "next_attempt_at": now,
    }
    rows = [{**row, "delivery_id": uuid.uuid4(), "channel": name} for name in names]
    connection.execute(insert(AlertDeliveryRow), rows)


def _settle(connection: Connection, delivery: Delivery, **values: Any) -> None:
    wanted = AlertDeliveryRow.delivery_id == delivery.delivery_id
    if values["state"] != "delivered":
        # What was superseded meanwhile stays so; what was accepted was accepted.
        wanted &= AlertDeliveryRow.state == "pending"
    connection.execute(update(AlertDeliveryRow).where(wanted).values(values))
