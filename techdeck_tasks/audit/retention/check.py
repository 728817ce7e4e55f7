"""Whether retention went by the rules: nothing dropped under a hold, no hold removed, every archive whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.month import bounds_of
from techdeck_tasks.audit.proof.evidence import Evidence
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.statement import SignatureCheck, SignatureState
from techdeck_tasks.audit.proof.tombstone import Tombstone
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.retention.coverage import noted_months
from techdeck_tasks.audit.retention.erase import ERASED
from techdeck_tasks.audit.retention.holds import HOLD_ADDED, HOLD_RELEASED, Hold, all_holds
from techdeck_tasks.audit.row_document import DiffersError

_TOLD_OF = text("""
    SELECT DISTINCT outcome FROM audit_event
    WHERE event_type = :event_type AND service = 'audit' AND operation = :operation
    AND recorded_at < now() - interval '1 minute' ORDER BY outcome
""")
# A release that lies ahead, or so far back that its record must have arrived.
_RELEASED = text("""
    SELECT hold_id, released_at FROM audit_hold hold
    WHERE released_at NOT BETWEEN now() - CAST(:settling AS interval) AND now()
    AND NOT EXISTS (
        SELECT FROM audit_event WHERE event_type = :event_type AND service = 'audit'
        AND operation = :operation AND outcome = CAST(hold.hold_id AS text))
    ORDER BY hold_id
""")
# Neither a scope nor persons that Python could not read.
_UNREADABLE = text("""
    SELECT hold_id FROM audit_hold
    WHERE NOT isfinite(created_at) OR NOT isfinite(occurred_from) OR NOT isfinite(occurred_until)
    OR NOT isfinite(released_at) OR array_position(person_indexes, NULL) IS NOT NULL
    OR greatest(created_at, occurred_from, occurred_until, released_at) > '9999-12-30'
    OR least(created_at, occurred_from, occurred_until, released_at) < '0001-01-02'
    ORDER BY hold_id
""")
_KEYS_MISSING = text("""
    SELECT count(*) AS number, count(DISTINCT key_id) AS keys, min(CAST(event_id AS text)) AS example
    FROM audit_event e WHERE occurred_at >= :since
    AND NOT EXISTS (SELECT FROM audit_data_key k WHERE k.key_id = e.key_id)
""")
# Of the keys destroyed at one moment the log tells the number and the fingerprint.
_DESTROYED = text("""
    SELECT to_char(erased_at, 'YYYY-MM-DD') AS day, number,
        CASE WHEN erased_at BETWEEN '0001-01-02' AND '9999-12-30' THEN erased_at END AS erased_at
    FROM (
        SELECT erased_at, count(*) AS number, sha256(convert_to(
            string_agg(CAST(key_id AS text), ',' ORDER BY key_id), 'UTF8')) AS digest
        FROM audit_data_key WHERE erased_at NOT BETWEEN now() - CAST(:settling AS interval) AND now()
        GROUP BY erased_at
    ) destroyed
    WHERE NOT EXISTS (
        SELECT FROM audit_event
        WHERE event_type = :event_type AND service = 'audit' AND operation = :operation
        AND outcome = number || ' ' || encode(digest, 'hex'))
    ORDER BY destroyed.erased_at
""")


def check_holds(
    connection: Connection, tombstones: Sequence[Tombstone], settling: timedelta
) -> Iterator[Finding]:
    """Yield what is wrong with legal holds.

    A hold on a run or a person counts for the months that the log tells it covers.

    Args:
        connection: the snapshot to look at.
        tombstones: the valid ones.
        settling: the record of a release may arrive so much later.
    """
    told_of = {"event_type": EventType.OPERATOR_ACTION.value, "operation": HOLD_ADDED}
    unreadable = connection.execute(_UNREADABLE).scalars().all()
    for hold_id in unreadable:
        detail = f"hold {hold_id} names a time or a person that cannot be"
        yield Finding(Verdict.HOLD_CHANGED, "audit_hold", detail)
    if unreadable:
        return
    there = {str(hold.hold_id): hold for hold in all_holds(connection)}
    for outcome in connection.execute(_TOLD_OF, told_of).scalars():
        hold_id, _, fingerprint = (outcome or "").partition(" ")
        if hold_id not in there:
            detail = f"the log tells of hold {hold_id}; it is not there"
            yield Finding(Verdict.HOLD_REMOVED, "audit_hold", detail)
        elif there[hold_id].fingerprint != fingerprint:
            detail = f"hold {hold_id} is not the one that the log tells of"
            yield Finding(Verdict.HOLD_CHANGED, "audit_hold", detail)
    dropped = [bounds_of(tombstone.month) for tombstone in tombstones]
    releases = told_of | {"operation": HOLD_RELEASED, "settling": settling}
    for row in connection.execute(_RELEASED, releases):
        before_it_was_set = row.released_at < there[str(row.hold_id)].created_at
        if before_it_was_set or not any(begin <= row.released_at < end for begin, end in dropped):
            detail = f"hold {row.hold_id} is released, and the log does not tell of it"
            yield Finding(Verdict.HOLD_REMOVED, "audit_hold", detail)
    yield from _pruned_under_hold(tombstones, there, noted_months(connection))


def _pruned_under_hold(
    tombstones: Sequence[Tombstone], holds: Mapping[str, Hold], noted: Mapping[str, set[str]]
) -> Iterator[Finding]:
    for tombstone in tombstones:
        for hold in holds.values():
            in_force = hold.created_at <= tombstone.made_at and (
                hold.released_at is None or hold.released_at > tombstone.made_at
            )
            if hold.covers_all_of_a_time:
                covers = hold.overlaps(*bounds_of(tombstone.month))
            else:
                covers = f"{tombstone.month:%Y-%m}" in noted.get(str(hold.hold_id), ())
            if in_force and covers:
                detail = (
                    f"{tombstone.month:%Y-%m} was dropped by {tombstone.made_by} under hold {hold.hold_id}"
                )
                yield Finding(Verdict.PRUNED_UNDER_HOLD, "audit_tombstone", detail)


def check_keys(
    connection: Connection, tombstones: Sequence[Tombstone], settling: timedelta, since: datetime
) -> Iterator[Finding]:
    """Yield the data keys that are gone, and those that were destroyed without an erasure on record.

    Whether a key that is there still opens its documents shows only to who holds the reader's key.

    Args:
        connection: the snapshot to look at.
        tombstones: the valid ones; what happened in a dropped month may have been recorded there.
        settling: the record of an erasure may arrive so much later.
        since: look at documents from then on.
    """
    missing = connection.execute(_KEYS_MISSING, {"since": since}).one()
    if missing.number:
        detail = (
            f"{missing.number} documents lack their {missing.keys} data keys, the first is {missing.example}"
        )
        yield Finding(Verdict.DATA_KEY_REMOVED, "audit_data_key", detail)
    dropped = [bounds_of(tombstone.month) for tombstone in tombstones]
    told_of = {"event_type": EventType.OPERATOR_ACTION.value, "operation": ERASED, "settling": settling}
    for found in connection.execute(_DESTROYED, told_of):
        at = found.erased_at
        if at is None or not any(begin <= at < end for begin, end in dropped):
            detail = (
                f"{found.number} data keys were destroyed on {found.day}, and the log does not tell of it"
            )
            yield Finding(Verdict.DATA_KEY_REMOVED, "audit_data_key", detail)


def check_archive(archive: Archive, check: SignatureCheck, evidence: Evidence) -> Iterator[Finding]:
    """Yield the months whose archive is missing or not the one that was signed, and tombstones that differ.

    Args:
        archive: where dropped months are.
        check: knows the keys to trust.
        evidence: what the database has signed.

    Raises:
        OSError: the archive cannot be read.
    """
    for tombstone in evidence.tombstones:
        yield from _check_copy(archive, check, tombstone)
        if not archive.has(tombstone.month):
            detail = f"the archive has no month {tombstone.month:%Y-%m}"
            yield Finding(Verdict.ARCHIVE_DIFFERS, "archive", detail)
        elif archive.digest(tombstone.month) != tombstone.archive_digest:
            detail = f"the archive of {tombstone.month:%Y-%m} is not the one that was signed"
            yield Finding(Verdict.ARCHIVE_DIFFERS, "archive", detail)
    accounted = {tombstone.month for tombstone in evidence.tombstones} | evidence.months_there
    for month in sorted(archive.tombstone_months() - accounted):
        detail = f"the archive has a tombstone of {month:%Y-%m}, the database neither that nor the month"
        yield Finding(Verdict.TOMBSTONE_LOST, "archive", detail)


def _check_copy(archive: Archive, check: SignatureCheck, tombstone: Tombstone) -> Iterator[Finding]:
    what = f"the tombstone beside the archive of {tombstone.month:%Y-%m}"
    try:
        copy = archive.tombstone(tombstone.month)
    except DiffersError as error:
        yield Finding(Verdict.TOMBSTONE_FORGED, "archive", f"{what} {error}")
        return
    if copy is None:
        if tombstone.in_archive:
            yield Finding(Verdict.TOMBSTONE_LOST, "archive", f"{what} is missing")
    elif check.state(copy) is not SignatureState.VALID:
        yield Finding(Verdict.TOMBSTONE_FORGED, "archive", f"the signature of {what} does not hold")
    elif copy.statement != tombstone.encode():
        yield Finding(Verdict.TOMBSTONE_FORGED, "archive", f"{what} is not the one in the database")
