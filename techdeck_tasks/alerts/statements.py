"""The statements of an evaluation. Each runs on the caller's connection, inside its transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from techdeck_tasks.alerts.models import AlertEvaluationRow, AlertRow, AlertSilenceRow
from techdeck_tasks.alerts.silence import Silence
from techdeck_tasks.alerts.state import Alert, AlertState

ALERTS = select(*(getattr(AlertRow, field.name) for field in fields(Alert)))
"""Read a row with `alert_of`."""

SILENCES = select(*(getattr(AlertSilenceRow, field.name) for field in fields(Silence)))
"""Read a row with `silence_of`."""

# One statement decides who evaluates: a second evaluator waits for the first one's commit, and sees its time.
_TAKE_TURN = text("""
    INSERT INTO alert_evaluation AS e (single, first_at, last_at) VALUES (true, :now, :now)
    ON CONFLICT (single) DO UPDATE SET last_at = excluded.last_at
        WHERE e.last_at <= excluded.last_at - CAST(:apart AS interval)
    RETURNING first_at
""")

# Others change these while an evaluation goes on: senders and operators.
_OF_OTHERS = {"notified_at", "acknowledged_by", "acknowledged_at"}


def take_turn(connection: Connection, now: datetime, apart: timedelta) -> bool:
    """Tell whether this evaluator is the one for `now`: the last evaluation was at least `apart` ago."""
    return connection.execute(_TAKE_TURN, {"now": now, "apart": apart}).first() is not None


def watched_since(connection: Connection) -> datetime | None:
    """Return when alerts were first evaluated."""
    return connection.execute(select(AlertEvaluationRow.first_at)).scalar()


def lock_active(connection: Connection) -> dict[str, Alert]:
    """Return the alerts that are not resolved, by key, locked until the transaction ends."""
    active = ALERTS.where(AlertRow.state != AlertState.RESOLVED).with_for_update()
    return {alert.key: alert for alert in read_alerts(connection, active)}


def save(connection: Connection, alerts: Sequence[Alert]) -> None:
    """Store alerts, new and changed ones."""
    if not alerts:
        return
    rows = [asdict(alert) | {"items": sorted(alert.items)} for alert in alerts]
    statement = insert(AlertRow).values(rows)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in _OF_OTHERS}
    connection.execute(statement.on_conflict_do_update(index_elements=["alert_id"], set_=changed))


def forget(connection: Connection, alerts: Iterable[Alert], ended_before: datetime) -> None:
    """Delete `alerts`, which never fired, and those that were resolved before `ended_before`."""
    never_fired = AlertRow.alert_id.in_([alert.alert_id for alert in alerts])
    connection.execute(delete(AlertRow).where(never_fired | (AlertRow.resolved_at < ended_before)))


def silences_at(connection: Connection, now: datetime) -> list[Silence]:
    """Return the silences that hold at `now`."""
    rows = connection.execute(SILENCES.where(AlertSilenceRow.until > now))
    return [silence_of(row) for row in rows]


def read_alerts(connection: Connection, statement: Select[Any]) -> list[Alert]:
    """Return the alerts that `statement`, made from `ALERTS`, finds."""
    return [alert_of(row) for row in connection.execute(statement)]


def alert_of(row: Row[Any]) -> Alert:
    """Return the alert of a row of `ALERTS`."""
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return Alert(**values | {"state": AlertState(values["state"]), "items": frozenset(values["items"])})


def silence_of(row: Row[Any]) -> Silence:
    """Return the silence of a row of `SILENCES`."""
    return Silence(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
