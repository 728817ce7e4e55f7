"""Times in which nobody is told of certain alerts. They fire, resolve and are on record all the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from techdeck_tasks.alerts.state import Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """One silence; moments are aware UTC.

    Attributes:
        alert_type: only alerts of this type; None: of any.
        subject: only alerts of this subject; None: of any.
    """

    silence_id: uuid.UUID
    alert_type: str | None
    subject: str | None
    owner: str
    reason: str
    created_at: datetime
    until: datetime

    def covers(self, alert: Alert) -> bool:
        """Tell whether `alert` is meant; the time is not looked at."""
        return self.alert_type in (None, alert.alert_type) and self.subject in (None, alert.subject)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data."""
        return {
            "silence_id": str(self.silence_id),
            "alert_type": self.alert_type,
            "subject": self.subject,
            "owner": self.owner,
            "reason": self.reason,
            "created_at": self.created_at.isoformat(),
            "until": self.until.isoformat(),
        }


def silenced(alert: Alert, silences: Iterable[Silence]) -> bool:
    """Tell whether one of `silences` covers `alert`."""
    return any(silence.covers(alert) for silence in silences)
