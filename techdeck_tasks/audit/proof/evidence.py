"""What is signed about the log: checkpoints and tombstones, and whether they themselves are whole."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.engine import Row

from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.proof.checkpoint import PARTITIONS, Checkpoint, hash_checkpoint
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.statement import SignatureCheck, SignatureState, Signed
from techdeck_tasks.audit.proof.tombstone import ChainRun, Tombstone
from techdeck_tasks.errors import ValidationError

CHECKPOINTS = "audit_checkpoint"
TOMBSTONES = "audit_tombstone"

_BASE = text("SELECT max(checkpoint_seq) FROM audit_checkpoint WHERE made_at <= :since")
# A time that Python does not know (infinity, say) is none that was signed, and must not end the verification.
_CHECKPOINTS = text("""
    SELECT checkpoint_seq,
        CASE WHEN made_at BETWEEN '0001-01-02' AND '9999-12-30' THEN made_at END AS made_at,
        rows, key_id, statement, signature
    FROM audit_checkpoint
    WHERE checkpoint_seq >= :first ORDER BY checkpoint_seq
""")
_TOMBSTONES = text("""
    SELECT CASE WHEN month BETWEEN '0001-01-02' AND '9999-12-30' THEN month END AS month,
        to_char(month, 'YYYY-MM') AS name,
        CASE WHEN made_at BETWEEN '0001-01-02' AND '9999-12-30' THEN made_at END AS made_at,
        rows, key_id, statement, signature FROM audit_tombstone ORDER BY audit_tombstone.month
""")


_Kind = TypeVar("_Kind", Checkpoint, Tombstone)
_TABLES = {
    Checkpoint: (CHECKPOINTS, Verdict.CHECKPOINT_FORGED),
    Tombstone: (TOMBSTONES, Verdict.TOMBSTONE_FORGED),
}


class SignedHead(NamedTuple):
    """What checkpoint `checkpoint` says about a row."""

    row_hash: bytes
    checkpoint: int


@dataclass(slots=True)
class Evidence:
    """Everything signed that holds.

    Attributes:
        base: where an incremental verification begins; None: at the beginning.
        newest: the last valid checkpoint.
        checkpoints: how many rows of the table were checked.
        digests: the hash of every valid checkpoint's statement, by its number.
        made_at: when each of them was made.
        heads: by writer and number, the rows that checkpoints saw.
        months: the partitions that checkpoints saw, each with the last one that did.
        months_there: the partitions that there are, by their first days.
        tombstones: the valid ones.
        findings: what does not hold.
    """

    base: Checkpoint | None = None
    newest: Checkpoint | None = None
    checkpoints: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)
    made_at: dict[int, datetime] = field(default_factory=dict)
    heads: dict[str, dict[int, SignedHead]] = field(default_factory=dict)
    months: dict[str, int] = field(default_factory=dict)
    months_there: set[date] = field(default_factory=set)
    tombstones: list[Tombstone] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def start(self) -> dict[str, Head]:
        """Return where each chain begins to be verified; those not named begin at their genesis."""
        return {head.writer_id: head for head in self.base.heads} if self.base else {}

    def dropped_runs(self) -> dict[str, list[ChainRun]]:
        """Return the rows that tombstones account for, by writer."""
        runs: dict[str, list[ChainRun]] = {}
        for tombstone in self.tombstones:
            for run in tombstone.runs:
                runs.setdefault(run.writer_id, []).append(run)
        return runs

    def dropped_numbers(self) -> dict[uuid.UUID, int]:
        """Return how many numbers of each producer tombstones account for."""
        numbers: Counter[uuid.UUID] = Counter()
        for tombstone in self.tombstones:
            numbers.update(dict(tombstone.producers))
        return numbers


def gather(connection: Connection, check: SignatureCheck, since: datetime | None) -> Evidence:
    """Check every checkpoint and tombstone.

    Args:
        connection: the snapshot to look at.
        check: knows the keys to trust.
        since: begin at the last checkpoint made at or before; None: at the first.
    """
    evidence = Evidence()
    first = connection.execute(_BASE, {"since": since}).scalar_one() if since is not None else None
    _check_checkpoints(connection, check, evidence, first)
    evidence.findings.extend(_check_tombstones(connection, check, evidence.tombstones))
    evidence.findings.extend(_missing_partitions(connection, evidence))
    return evidence


def _check_checkpoints(
    connection: Connection, check: SignatureCheck, evidence: Evidence, first: int | None
) -> None:
    findings = evidence.findings
    expected = first or 1
    # None: the one before is not known, and the link to it cannot be judged.
    link = None if first else hash_checkpoint(None)
    for row in connection.execute(_CHECKPOINTS, {"first": first or -(1 << 63)}):
        evidence.checkpoints += 1
        seq: int = row.checkpoint_seq
        if seq > expected:
            detail = f"checkpoints {expected} to {seq - 1} are missing"
            findings.append(Finding(Verdict.CHECKPOINT_REMOVED, CHECKPOINTS, detail))
            link = None
        expected = seq + 1
        checkpoint = _read(row, check, Checkpoint, seq, f"checkpoint {seq}")
        if isinstance(checkpoint, Finding):
            findings.append(checkpoint)
            link = None
            continue
        if link is not None and checkpoint.prev_hash != link:
            detail = f"checkpoint {seq} does not follow from the one before it"
            findings.append(Finding(Verdict.CHECKPOINT_FORGED, CHECKPOINTS, detail))
        link = evidence.digests[seq] = hash_checkpoint(row.statement)
        evidence.made_at[seq] = checkpoint.made_at
        findings.extend(_take_heads(evidence.heads, checkpoint))
        evidence.months |= dict.fromkeys(checkpoint.partitions, seq)
        if seq == first:
            evidence.base = checkpoint
        evidence.newest = checkpoint


def _take_heads(heads: dict[str, dict[int, SignedHead]], checkpoint: Checkpoint) -> Iterator[Finding]:
    for head in checkpoint.heads:
        if head.seq < 1:
            continue
        known = heads.setdefault(head.writer_id, {})
        # The older statement stands: who rewrote the chain did so after it was made.
        first = known.setdefault(head.seq, SignedHead(head.row_hash, checkpoint.seq))
        if first.row_hash != head.row_hash:
            detail = (
                f"row {head.seq} of checkpoint {checkpoint.seq} is not the one that {first.checkpoint} saw"
            )
            yield Finding(Verdict.HISTORY_REWRITTEN, head.writer_id, detail)


def _check_tombstones(
    connection: Connection, check: SignatureCheck, valid: list[Tombstone]
) -> Iterator[Finding]:
    for row in connection.execute(_TOMBSTONES):
        tombstone = _read(row, check, Tombstone, row.month, f"the tombstone of {row.name or 'no month'}")
        if isinstance(tombstone, Finding):
            yield tombstone
        else:
            valid.append(tombstone)


def _read(row: Row[Any], check: SignatureCheck, kind: type[_Kind], key: object, what: str) -> _Kind | Finding:
    """Return what `row` says, or why it says nothing."""
    table, forged = _TABLES[kind]
    match check.state(Signed(row.statement, row.key_id, row.signature)):
        case SignatureState.UNKNOWN_KEY:
            detail = f"{what} is signed under the key {row.key_id!r}, which is not trusted here"
            return Finding(Verdict.UNKNOWN_KEY, table, detail)
        case SignatureState.FORGED:
            return Finding(forged, table, f"the signature of {what} does not hold")
        case SignatureState.VALID:
            pass
    try:
        said = kind.decode(row.statement)
    except ValidationError:
        return Finding(forged, table, f"{what} is a statement of another kind")
    if (said.key, said.made_at, said.rows) != (key, row.made_at, row.rows):
        return Finding(forged, table, f"the columns of {what} are not what was signed")
    return said


def _missing_partitions(connection: Connection, evidence: Evidence) -> Iterator[Finding]:
    there = set(connection.execute(PARTITIONS).scalars())
    evidence.months_there = {date(int(name[:4]), int(name[4:]), 1) for name in there}
    accounted = {f"{tombstone.month:%Y%m}" for tombstone in evidence.tombstones}
    for month, seq in sorted(evidence.months.items()):
        if month not in there and month not in accounted:
            detail = f"checkpoint {seq} saw the month {month}; it has neither rows nor tombstone"
            yield Finding(Verdict.PARTITION_MISSING, "audit_event", detail)
