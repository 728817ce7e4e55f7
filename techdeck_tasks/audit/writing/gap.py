"""What could not be kept: counted, and put on record as soon as something can be recorded again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.sealing import MAX_CLEAR_CHARS, SealedEvent
from techdeck_tasks.errors import Severity

GAP_CODE = "AUDIT_GAP"
MAX_RANGES = 64
"""So many ranges of numbers a gap names, the newest; the events of older ones are counted only."""

_COUNT_CHARACTERS = len("lost : ") + 19

Range = tuple[int, int]

_NUMBERS = r"\d{1,19}(?:-\d{1,19})?"
_OUTCOME = re.compile(rf"lost (?P<count>\d{{1,19}}): (?P<ranges>{_NUMBERS}(?:,{_NUMBERS})*)", re.ASCII)


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

        `outcome`, in the clear for who verifies without a key, is ``lost COUNT: 3-17,20``, with the newest
        ranges that fit into it.
        """
        outcome = f"lost {self.count}: {_spelled(self.sequences)}"
        return AuditEvent(
            event_type=EventType.GAP,
            severity=Severity.CRITICAL.value,
            service="audit",
            operation="record",
            error_code=GAP_CODE,
            outcome=outcome,
            retention_days=self.retention_days,
            document={
                "message": f"{self.count} audit events could be kept neither in Redis nor in the spool",
                "lost_by_severity": dict(self.lost),
                "first_at": self.first_at.isoformat(),
                "last_at": self.last_at.isoformat(),
                "producer_sequences": [list(found) for found in self.sequences],
            },
        )


def _spelled(ranges: Sequence[Range]) -> str:
    room = MAX_CLEAR_CHARS - _COUNT_CHARACTERS
    spelled: list[str] = []
    for first, last in reversed(ranges):
        spelled.append(str(first) if first == last else f"{first}-{last}")
        room -= len(spelled[-1]) + 1
        if room < 0:
            spelled.pop()
            break
    return ",".join(reversed(spelled))


def lost_numbers(outcome: str | None) -> tuple[int, tuple[Range, ...]]:
    """Return how many events the `outcome` of a gap says are lost, and the ranges of numbers that it names.

    What no gap says is no loss: 0 and no ranges. A gap names no more numbers than it counts.
    """
    said = _OUTCOME.fullmatch(outcome or "")
    if said is None:
        return 0, ()
    bounds = [part.partition("-") for part in said["ranges"].split(",")]
    ranges = tuple((int(first), int(last or first)) for first, _, last in bounds)
    count = int(said["count"])
    if any(first > last for first, last in ranges) or sum(b - a + 1 for a, b in ranges) > count:
        return 0, ()
    return count, ranges


def _merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)
