"""Judging a whole chain from its scanned stretches, its head, and what is signed about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.proof.chain_scan import MAX_FAULTS, Joint, Misfit, Scan
from techdeck_tasks.audit.proof.evidence import SignedHead
from techdeck_tasks.audit.proof.finding import Finding, Verdict
from techdeck_tasks.audit.proof.tombstone import ChainRun


class ChainJudge:
    """One writer's chain, followed stretch by stretch.

    Args:
        start: where it begins: its genesis, or a signed head.
        dropped: the runs that valid tombstones account for.
    """

    def __init__(self, start: Head, dropped: Sequence[ChainRun]) -> None:
        self._head = start
        self._writer_id = start.writer_id
        self._dropped = {run.first: run for run in dropped}
        self._misfits: list[Misfit] = []
        self._contradicted: list[int] = []
        self._unlinked: list[tuple[int, int]] = []
        self.rows = 0

    def follow(self, scan: Scan) -> Iterator[Finding]:
        """Go on over a stretch."""
        self.rows += scan.rows
        self._misfits += scan.misfits
        self._contradicted += scan.contradicted
        yield from scan.findings
        for joint in scan.joints:
            if joint.before is not None:
                self._head = joint.before
            yield from self._join(joint)
        if scan.end is not None:
            self._head = scan.end

    def close(self, head: Head | None, signed: Mapping[int, SignedHead]) -> Iterator[Finding]:
        """Judge the whole, against the stored head and the heads that checkpoints signed."""
        self._skip_dropped()
        yield from self._judge_misfits()
        yield from self._judge_end(head, signed)
        if self._contradicted:
            seq = min(self._contradicted)
            more = len(self._contradicted) - 1
            detail = f"row {seq} is not the one that checkpoint {signed[seq].checkpoint} saw"
            detail += f", nor are {more} later ones that checkpoints saw" if more else ""
            yield self._finding(Verdict.HISTORY_REWRITTEN, detail)

    def _join(self, joint: Joint) -> Iterator[Finding]:
        if joint.seq > self._head.seq + 1:
            self._skip_dropped()
        if joint.seq > self._head.seq + 1:
            detail = f"rows {self._head.seq + 1} to {joint.seq - 1}"
            yield self._finding(Verdict.ROWS_REMOVED, detail)
        elif joint.prev_hash != self._head.row_hash:
            self._unlinked.append((self._head.seq, joint.seq))

    def _skip_dropped(self) -> None:
        while (run := self._dropped.get(self._head.seq + 1)) and run.prev_hash == self._head.row_hash:
            self._head = Head(self._writer_id, run.last, run.row_hash)

    def _judge_misfits(self) -> Iterator[Finding]:
        reordered = set()
        places = [misfit.seq for misfit in self._misfits[:MAX_FAULTS]]
        for misfit in self._misfits[:MAX_FAULTS]:
            own = next((seq for seq in places if misfit.fits(self._writer_id, seq)), None)
            if own is None:
                detail = f"row {misfit.seq} does not match its hash"
                yield self._finding(Verdict.CHAIN_BROKEN, detail)
            else:
                reordered.add(misfit.seq)
                detail = f"what stands as row {misfit.seq} was written as row {own}"
                yield self._finding(Verdict.ROW_REORDERED, detail)
        if len(self._misfits) > MAX_FAULTS:
            detail = f"and {len(self._misfits) - MAX_FAULTS} more rows do not match their hashes"
            yield self._finding(Verdict.CHAIN_BROKEN, detail)
        for before, seq in self._unlinked[:MAX_FAULTS]:
            if not reordered & {before, seq}:
                yield self._finding(Verdict.CHAIN_BROKEN, f"row {seq} does not follow row {before}")

    def _judge_end(self, head: Head | None, signed: Mapping[int, SignedHead]) -> Iterator[Finding]:
        end = self._head
        last_signed = max(signed, default=0)
        seen = max(head.seq if head else 0, last_signed)
        if end.seq < seen:
            if head is not None and head.seq == seen:
                said = f"its head is at {seen}"
            else:
                said = f"checkpoint {signed[seen].checkpoint} saw row {seen}"
            if end.seq == 0:
                yield self._finding(Verdict.WRITER_REMOVED, f"no rows; {said}")
            else:
                yield self._finding(Verdict.TAIL_CUT, f"ends at row {end.seq}; {said}")
        elif head is None:
            if end.seq > 0:
                yield self._finding(Verdict.HEAD_REMOVED, f"{end.seq} rows, no head")
        elif (end.seq, end.row_hash) != (head.seq, head.row_hash):
            detail = f"its head is at row {head.seq}, its chain ends at row {end.seq} or with another hash"
            yield self._finding(Verdict.HEAD_DIFFERS, detail)

    def _finding(self, verdict: Verdict, detail: str) -> Finding:
        return Finding(verdict, self._writer_id, detail)
