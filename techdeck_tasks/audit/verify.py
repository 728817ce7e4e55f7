"""Proving that nobody changed the log. Needs no key: digests and chains cover clear columns and ciphertext."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, select, text
from sqlalchemy.engine import Row

from techdeck_tasks.audit.chain import Head
from techdeck_tasks.audit.models import AuditEventRow, AuditWriterHead
from techdeck_tasks.audit.reader import record_of
from techdeck_tasks.storage.database import transaction

_FETCH = 1000

_PRODUCER_GAPS = text("""
    SELECT producer_id, min(producer_seq) AS first, max(producer_seq) AS last, count(*) AS present
    FROM audit_event GROUP BY producer_id
    HAVING count(*) <> max(producer_seq)
""")


class Verdict(StrEnum):
    """What can be wrong with the log."""

    ROW_EDITED = "row_edited"
    """Content and digest do not match: a clear column or the ciphertext was changed."""
    CHAIN_BROKEN = "chain_broken"
    """A row does not follow from the one before it: inserted, reordered, or rewritten."""
    ROWS_MISSING = "rows_missing"
    """Numbers of a writer's chain are missing: rows were removed."""
    TAIL_CUT = "tail_cut"
    """A chain ends before its writer's head."""
    HEAD_MISSING = "head_missing"
    """Rows of a writer whose head is gone."""
    EVENTS_LOST = "events_lost"
    """A producer counted events that never arrived: removed, or lost where the producer was killed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where; `chain` is a writer's or a producer's id."""

    verdict: Verdict
    chain: str
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and found. An untouched log has no findings."""

    rows: int
    writers: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(engine: Engine) -> VerifyReport:
    """Recompute every digest and chain from the rows; stored hashes are compared, never trusted.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
    """
    findings: list[Finding] = []
    rows = 0
    with transaction(engine) as connection:
        # One snapshot: rows that are being written meanwhile are seen with their head, or not at all.
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        heads = {
            row.writer_id: Head(row.writer_id, row.writer_seq, bytes(row.row_hash))
            for row in connection.execute(select(AuditWriterHead.__table__))
        }
        statement = select(AuditEventRow.__table__).order_by(AuditEventRow.writer_id, AuditEventRow.writer_seq)
        streamed = connection.execution_options(stream_results=True, max_row_buffer=_FETCH).execute(statement)
        reached: dict[str, Head] = {}
        for row in streamed:
            rows += 1
            head = reached.get(row.writer_id) or Head.genesis(row.writer_id)
            head, wrong = _follow(head, row)
            findings.extend(wrong)
            reached[row.writer_id] = head
        findings.extend(_compare_heads(heads, reached))
        for gap in connection.execute(_PRODUCER_GAPS):
            missing = gap.last - gap.present
            findings.append(
                Finding(
                    Verdict.EVENTS_LOST,
                    str(gap.producer_id),
                    f"{missing} of {gap.last} events of this producer are missing",
                )
            )
    return VerifyReport(rows, len(reached), tuple(findings))


def _follow(head: Head, row: Row[Any]) -> tuple[Head, list[Finding]]:
    """Return the head after `row`, and what is wrong with the row."""
    writer, findings = row.writer_id, []
    digest = record_of(row).content_digest
    if digest != bytes(row.content_digest):
        findings.append(Finding(Verdict.ROW_EDITED, writer, f"row {row.writer_seq}, event {row.event_id}"))
    if row.writer_seq > head.seq + 1:
        missing = f"rows {head.seq + 1} to {row.writer_seq - 1}"
        findings.append(Finding(Verdict.ROWS_MISSING, writer, missing))
    elif row.writer_seq != head.seq + 1 or bytes(row.prev_hash) != head.row_hash:
        findings.append(Finding(Verdict.CHAIN_BROKEN, writer, f"row {row.writer_seq} does not follow {head.seq}"))
    # From the stored link on, so that one fault is reported once and not on every later row.
    linked = Head(writer, row.writer_seq - 1, bytes(row.prev_hash))
    expected = linked.next(bytes(row.content_digest), row.recorded_at)
    if expected.row_hash != bytes(row.row_hash):
        findings.append(Finding(Verdict.CHAIN_BROKEN, writer, f"row {row.writer_seq} does not match its hash"))
    return Head(writer, row.writer_seq, bytes(row.row_hash)), findings


def _compare_heads(heads: dict[str, Head], reached: dict[str, Head]) -> Iterator[Finding]:
    for writer, end in reached.items():
        head = heads.get(writer)
        if head is None:
            yield Finding(Verdict.HEAD_MISSING, writer, f"{end.seq} rows, no head")
        elif end.seq < head.seq:
            yield Finding(Verdict.TAIL_CUT, writer, f"ends at row {end.seq}; its head is at {head.seq}")
        elif end != head:
            yield Finding(Verdict.CHAIN_BROKEN, writer, f"head at row {head.seq} does not match row {end.seq}")
    for writer, head in heads.items():
        if writer not in reached and head.seq > 0:
            yield Finding(Verdict.TAIL_CUT, writer, f"no rows; its head is at {head.seq}")
