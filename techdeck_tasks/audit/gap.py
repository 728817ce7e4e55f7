"""What could not be kept: counted, and put on record as soon as something can be recorded again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.sealing import SealedEvent
from techdeck_tasks.errors import Severity

GAP_CODE = "AUDIT_GAP"
MAX_RANGES = 64
"""So many ranges of numbers a gap names, the newest; the events of older ones are counted only."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of one producer that are lost.

    Attributes:
        lost: how many, by severity.
        first_at: when the first of them happened.
        last_at: when the last one did.
        sequences: their producer's numbers, as rising ranges, both ends included.
        retention_days: the longest that one of them had to be kept.
    """

    lost: Mapping[str, int]
    first_at: datetime
    last_at: datetime
    sequences: tuple[Range, ...]
    retention_days: int

    @classmethod
    def of(cls, event: AuditEvent, sealed: SealedEvent) -> Self:
        """Return the gap that one event leaves."""
        number = sealed.record.producer_seq
        at = event.occurred_at
        return cls({event.severity: 1}, at, at, ((number, number),), event.retention_days)

    def joined(self, other: Gap) -> Gap:
        """Return this gap and another of the same producer as one."""
        return Gap(
            lost=Counter(self.lost) + Counter(other.lost),
            first_at=min(self.first_at, other.first_at),
            last_at=max(self.last_at, other.last_at),
            sequences=_merged((*self.sequences, *other.sequences))[-MAX_RANGES:],
            retention_days=max(self.retention_days, other.retention_days),
        )

    @property
    def count(self) -> int:
        """How many events are lost."""
        return sum(self.lost.values())

    def as_event(self) -> AuditEvent:
        """Return the gap as an event of the producer that lost them.

        `outcome`, in the clear for who verifies without a key, is ``lost COUNT: 3-17,20``.
        """
        ranges = ",".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self.sequences
        )
        return AuditEvent(
            event_type=EventType.GAP,
            severity=Severity.CRITICAL.value,
            service="audit",
            operation="record",
            error_code=GAP_CODE,
            outcome=f"lost {self.count}: {ranges}",
            retention_days=self.retention_days,
            document={
                "message": f"{self.count} audit events could be kept neither in Redis nor in the spool",
                "lost_by_severity": dict(self.lost),
                "first_at": self.first_at.isoformat(),
                "last_at": self.last_at.isoformat(),
                "producer_sequences": [list(found) for found in self.sequences],
            },
        )


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)
