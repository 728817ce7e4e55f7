"""Which months a hold on a person or a run covers: on record, for verify to know once they are dropped."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select, text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.models import AuditEventRow

HOLD_COVERS = "hold_covers"
"""Operation on record. Its `outcome`, in the clear for verify, is the hold's id and its months."""

_NOTED = text("""
    SELECT DISTINCT outcome FROM audit_event
    WHERE event_type = :event_type AND service = 'audit' AND operation = :operation
""")


def months_with(connection: Connection, condition: ColumnElement[bool]) -> set[str]:
    """Return the months, as ``2018-03``, that have rows of which `condition` is true."""
    month = func.to_char(func.timezone("UTC", AuditEventRow.occurred_at), "YYYY-MM")
    return set(connection.execute(select(month).where(condition).distinct()).scalars())


def noted_months(connection: Connection) -> dict[str, set[str]]:
    """Return the months that the log tells each hold covers, by the hold's id."""
    noted: dict[str, set[str]] = {}
    told = {"event_type": EventType.OPERATOR_ACTION.value, "operation": HOLD_COVERS}
    for outcome in connection.execute(_NOTED, told).scalars():
        hold_id, *months = (outcome or "").split()
        noted.setdefault(hold_id, set()).update(months)
    return noted
