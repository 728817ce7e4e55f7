"""Whether every event arrived that its producer counted, or is on record as lost."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.writing.gap import Range, lost_numbers

_NUMBERS = """
    WITH settled AS (
        SELECT producer_id, max(producer_seq) AS last FROM audit_event
        WHERE recorded_at < now() - CAST(:settling AS interval) {and_active}
        GROUP BY producer_id
    )
    SELECT producer_id, last, count(*) AS rows, count(DISTINCT producer_seq) AS numbers
    FROM audit_event JOIN settled USING (producer_id) WHERE producer_seq <= last
    GROUP BY producer_id, last
    HAVING count(DISTINCT producer_seq) <> last OR count(*) <> last
    ORDER BY producer_id
"""
_ALL_PRODUCERS = text(_NUMBERS.format(and_active=""))
_ACTIVE_PRODUCERS = text(
    _NUMBERS.format(
        and_active="AND producer_id IN (SELECT producer_id FROM audit_event WHERE occurred_at >= :since)"
    )
)

_MISSING = text("""
    SELECT before + 1 AS first, producer_seq - 1 AS last
    FROM (
        SELECT producer_seq, lag(producer_seq, 1, CAST(0 AS bigint)) OVER (ORDER BY producer_seq) AS before
        FROM audit_event WHERE producer_id = :producer_id AND producer_seq <= :last
    ) numbered
    WHERE producer_seq > before + 1
""")

_GAPS = text("""
    SELECT outcome FROM audit_event WHERE producer_id = :producer_id AND event_type = :gap
""")


@dataclass(slots=True)
class ProducerCheck:
    """What the producers' numbers say.

    Attributes:
        losses: events that are missing and on record as lost by their own producers.
        findings: what is missing without a record, and what stands there twice.
    """

    losses: int = 0
    findings: list[Finding] = field(default_factory=list)


def check_producers(
    connection: Connection, dropped: Mapping[uuid.UUID, int], settling: timedelta, since: datetime | None
) -> ProducerCheck:
    """Compare the numbers that producers counted with those on record.

    Args:
        connection: the snapshot to look at.
        dropped: how many numbers of each producer valid tombstones account for.
        settling: gaps count only before a producer's events that were recorded longer ago.
        since: producers without an event since then were checked before; None checks all.
    """
    result = ProducerCheck()
    # Where every producer counts, PostgreSQL would look up each row twice to find that out.
    numbers = _ALL_PRODUCERS if since is None else _ACTIVE_PRODUCERS.bindparams(since=since)
    for found in connection.execute(numbers, {"settling": settling}):
        producer = str(found.producer_id)
        missing = found.last - found.numbers - dropped.get(found.producer_id, 0)
        if missing > 0:
            recorded = min(missing, _recorded_losses(connection, found.producer_id, found.last))
            result.losses += recorded
            if missing > recorded:
                detail = f"{missing - recorded} of {found.last} events of this producer are missing"
                result.findings.append(Finding(Verdict.PRODUCER_GAP, producer, detail))
        if found.numbers < found.rows:
            detail = f"{found.rows - found.numbers} numbers of this producer stand on more than one row"
            result.findings.append(Finding(Verdict.PRODUCER_NUMBER_REPEATED, producer, detail))
    return result


def _recorded_losses(connection: Connection, producer_id: uuid.UUID, last: int) -> int:
    """Count the missing numbers that the producer itself put on record as lost."""
    gaps = connection.execute(_GAPS, {"producer_id": producer_id, "gap": EventType.GAP.value}).scalars()
    losses = [lost_numbers(outcome) for outcome in gaps]
    lost = sorted(numbers for _, ranges in losses for numbers in ranges)
    # A gap of very many ranges names the newest; the numbers of the others it only counts.
    unnamed = sum(count - sum(end - start + 1 for start, end in ranges) for count, ranges in losses)
    if not lost:
        return unnamed
    missing = connection.execute(_MISSING, {"producer_id": producer_id, "last": last})
    return unnamed + _overlap([(row.first, row.last) for row in missing], lost)


def _overlap(missing: Sequence[Range], lost: Iterable[Range]) -> int:
    return sum(
        max(0, min(end, until) - max(start, begin) + 1)
        for begin, until in _disjoint(lost)
        for start, end in missing
    )


def _disjoint(ranges: Iterable[Range]) -> Iterator[Range]:
    # No number counts twice, whatever the gaps say.
    covered = 0
    for start, end in ranges:
        if end > covered:
            yield max(start, covered + 1), end
            covered = end
