"""What verification can find, and its report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What can be wrong with the log."""

    ROW_EDITED = "row_edited"
    """Content and digest do not match: a clear column or the ciphertext was changed."""
    ROW_INSERTED = "row_inserted"
    """A row whose number its chain has already, or never gives."""
    ROW_REORDERED = "row_reordered"
    """A row stands in the place of another one of its chain."""
    ROW_FROM_THE_FUTURE = "row_from_the_future"
    """A row says to have happened after it was recorded: no writer accepts that."""
    ROWS_REMOVED = "rows_removed"
    """Numbers of a chain are missing, or ids on record have no row."""
    CHAIN_BROKEN = "chain_broken"
    """A row does not match its hash, or does not follow from the one before it."""
    TAIL_CUT = "tail_cut"
    """A chain ends before its head, or before a signed checkpoint says it did."""
    WRITER_REMOVED = "writer_removed"
    """A writer that a checkpoint or a head names has no row left."""
    HEAD_REMOVED = "head_removed"
    """Rows of a writer that has no head."""
    HEAD_DIFFERS = "head_differs"
    """A head is not the end of its chain: rows were added behind it, or it was changed."""
    HISTORY_REWRITTEN = "history_rewritten"
    """A chain is consistent in itself and is not the one that a signed checkpoint saw."""
    PARTITION_MISSING = "partition_missing"
    """A month is gone, and no valid tombstone accounts for it."""
    TOMBSTONE_FORGED = "tombstone_forged"
    """A tombstone whose signature does not hold."""
    TOMBSTONE_LOST = "tombstone_lost"
    """A tombstone that is in the database or beside the archive, and not in the other place."""
    CHECKPOINT_FORGED = "checkpoint_forged"
    """A checkpoint whose signature, number or link does not hold."""
    CHECKPOINT_REMOVED = "checkpoint_removed"
    """Checkpoints are missing."""
    CHECKPOINT_OVERDUE = "checkpoint_overdue"
    """Older rows are covered by no checkpoint: the newest ones were removed, or are no longer made."""
    UNKNOWN_KEY = "unknown_key"
    """A signature under a key that the verifier does not know."""
    ROLLED_BACK = "rolled_back"
    """The backup sink has newer signed checkpoints: the database was replaced by an older copy."""
    SINK_DIFFERS = "sink_differs"
    """The backup sink lacks a segment, or holds other content than what was signed."""
    ID_MISSING = "id_missing"
    """Rows whose id is not on record: their events could be written twice."""
    DUPLICATE_ID_OTHER_CONTENT = "duplicate_id_other_content"
    """Rows whose id is on record with other content."""
    PRODUCER_GAP = "producer_gap"
    """A producer counted events that never arrived: removed, or lost where the producer was killed."""
    PRUNED_UNDER_HOLD = "pruned_under_hold"
    """A month was dropped while a legal hold covered it."""
    HOLD_CHANGED = "hold_changed"
    """A legal hold covers something else than the log tells of, or from another time on."""
    HOLD_REMOVED = "hold_removed"
    """A legal hold that the log tells of is not there, or is released and the log does not tell of it."""
    ARCHIVE_DIFFERS = "archive_differs"
    """The archive of a dropped month is missing, or not the one its tombstone signs."""
    SCHEMA_CHANGED = "schema_changed"
    """A table, trigger or function of the log is not as the migrations made it."""
    DATA_KEY_REMOVED = "data_key_removed"
    """Documents whose data key is gone, or was destroyed by an erasure that the log does not tell of."""
    DATA_KEY_CHANGED = "data_key_changed"
    """A sealed data key is not the one that the backup sink holds."""
    INCIDENT_CHANGED = "incident_changed"
    """A security incident was decided, dated or marked as notified past the log."""
    REPORT_CHANGED = "report_changed"
    """A compliance report or its sign-off is not what the log tells of, or is gone."""
    PRODUCER_NUMBER_REPEATED = "producer_number_repeated"
    """A producer's number stands on several rows: forged in its name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where; `chain` is a writer's or a producer's id, a table or the sink."""

    verdict: Verdict
    chain: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        """Return JSON-safe data."""
        return {"verdict": self.verdict.value, "chain": self.chain, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and found. An untouched log has no findings.

    Attributes:
        rows: how many were recomputed.
        writers: how many chains they are in.
        findings: what is wrong.
        checkpoints: how many were checked.
        segments: how many of the backup sink's.
        losses: events that never arrived, which their producers put on record as lost.
        old_tombstones: of archived months, made when no copy was stored beside the archive.
    """

    rows: int
    writers: int
    findings: tuple[Finding, ...]
    checkpoints: int = 0
    segments: int = 0
    losses: int = 0
    old_tombstones: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-safe data."""
        return {
            "ok": self.ok,
            "rows": self.rows,
            "writers": self.writers,
            "checkpoints": self.checkpoints,
            "segments": self.segments,
            "losses": self.losses,
            "old_tombstones": self.old_tombstones,
            "findings": [finding.to_dict() for finding in self.findings],
        }
