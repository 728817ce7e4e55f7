"""Comparing the backup sink with what the database has signed; neither is trusted more than the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.proof.checkpoint import Checkpoint, hash_checkpoint
from techdeck_tasks.audit.proof.evidence import Evidence
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.statement import SignatureCheck, SignatureState, Signed
from techdeck_tasks.audit.row_document import MALFORMED, DiffersError, from_base64, read_row

_SINK = "sink"
_LATENESS = timedelta(minutes=10)
"""A segment may follow its checkpoint so much later."""


def check_sink(store: SegmentStore, check: SignatureCheck, evidence: Evidence) -> tuple[int, list[Finding]]:
    """Return how many segments were read, and what is wrong with them or, by them, with the database.

    Args:
        store: the sink.
        check: knows the keys to trust.
        evidence: what the database has signed.

    Raises:
        OSError: the sink cannot be read.
    """
    first = evidence.base.seq + 1 if evidence.base else 1
    there = sorted(number for number in store.numbers() if number >= first)
    findings = list(_missing_segments(evidence, set(there), first))
    heads: dict[str, Head] | None = evidence.start() if evidence.base or 1 in there else None
    expected = first
    for number in there:
        if number != expected:
            heads = None
        expected = number + 1
        try:
            checkpoint = _check_segment(store, check, number, heads)
        except MALFORMED as error:
            reason = error.args[0] if isinstance(error, DiffersError) else "is malformed"
            findings.append(Finding(Verdict.SINK_DIFFERS, _SINK, f"segment {number} {reason}"))
            heads = None
            continue
        findings.extend(_compare(checkpoint, evidence))
        heads = {head.writer_id: head for head in checkpoint.heads}
    return len(there), findings


def _missing_segments(evidence: Evidence, there: set[int], first: int) -> Iterator[Finding]:
    due = datetime.now(UTC) - _LATENESS
    missing = [
        number
        for number, made_at in evidence.made_at.items()
        if number >= first and number not in there and (made_at < due or number < max(there, default=0))
    ]
    if missing:
        detail = f"{len(missing)} segments are missing, the first is {missing[0]}, the last {missing[-1]}"
        yield Finding(Verdict.SINK_DIFFERS, _SINK, detail)


def _compare(checkpoint: Checkpoint, evidence: Evidence) -> Iterator[Finding]:
    number = checkpoint.seq
    newest = evidence.newest.seq if evidence.newest else 0
    known = evidence.digests.get(number)
    if known is None and number > newest:
        detail = f"the sink has checkpoint {number} of {checkpoint.made_at:%Y-%m-%d %H:%M:%S}, the database "
        yield Finding(Verdict.ROLLED_BACK, _SINK, detail + f"ends at {newest}")
    elif known is None:
        detail = f"the sink has checkpoint {number}, the database has no valid one of that number"
        yield Finding(Verdict.CHECKPOINT_REMOVED, _SINK, detail)
    elif known != hash_checkpoint(checkpoint.encode()):
        detail = f"checkpoint {number} was signed twice: the database went on from an older copy of itself"
        yield Finding(Verdict.ROLLED_BACK, _SINK, detail)


def _check_segment(
    store: SegmentStore, check: SignatureCheck, number: int, heads: dict[str, Head] | None
) -> Checkpoint:
    """Return the segment's checkpoint, after its rows were recomputed up to what it signed.

    Args:
        store: the sink.
        check: knows the keys to trust.
        number: of the segment.
        heads: where the segment before ended; None: not known.
    """
    ends = dict(heads or {})
    checkpoint: Checkpoint | None = None
    for line in store.lines(number):
        if checkpoint is not None:
            raise DiffersError("goes on behind its checkpoint")
        document = json.loads(line)
        if document["kind"] == "checkpoint":
            checkpoint = _read_checkpoint(document, check)
        else:
            row = read_row(document)
            end = row.place
            before = ends.get(end.writer_id, Head.genesis(end.writer_id))
            known = heads is not None or end.writer_id in ends
            if known and (end.seq != before.seq + 1 or row.prev_hash != before.row_hash):
                raise DiffersError(f"has row {end.seq} of {end.writer_id} out of its place")
            ends[end.writer_id] = end
    if checkpoint is None:
        raise DiffersError("has no checkpoint")
    if checkpoint.seq != number:
        raise DiffersError(f"holds checkpoint {checkpoint.seq}")
    for head in checkpoint.heads:
        if (
            head.seq > 0
            and (heads is not None or head.writer_id in ends)
            and ends.get(head.writer_id) != head
        ):
            raise DiffersError(f"lacks rows of {head.writer_id}, which its checkpoint saw up to {head.seq}")
    return checkpoint


def _read_checkpoint(document: dict[str, Any], check: SignatureCheck) -> Checkpoint:
    signed = Signed(
        from_base64(document["statement"]), str(document["key_id"]), from_base64(document["signature"])
    )
    if check.state(signed) is not SignatureState.VALID:
        raise DiffersError("has a checkpoint whose signature does not hold")
    return Checkpoint.decode(signed.statement)
