"""Proving that nobody changed the log. Needs no decryption key: digests and chains cover the ciphertext.

What it cannot see: rows added since the last checkpoint that were removed or rewritten together with their
ids and their writers' heads, while their producers added none after them. Checkpoints are made every minute.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, Row, text

from techdeck_tasks.audit.compliance.check import check_reports
from techdeck_tasks.audit.incidents.check import check_incidents
from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.proof.chain_judge import ChainJudge
from techdeck_tasks.audit.proof.chain_scan import (
    SET_SNAPSHOT,
    Scan,
    Stretch,
    find_stretches,
    join_snapshot,
    scan,
    scan_in_pool,
)
from techdeck_tasks.audit.proof.evidence import CHECKPOINTS, Evidence, gather
from techdeck_tasks.audit.proof.finding import Finding, Verdict, VerifyReport
from techdeck_tasks.audit.proof.key_check import check_sink_keys
from techdeck_tasks.audit.proof.producer_check import ProducerCheck, check_producers
from techdeck_tasks.audit.proof.schema_check import check_schema
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_check import check_sink
from techdeck_tasks.audit.proof.statement import SignatureCheck
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.retention.check import check_archive, check_holds, check_keys
from techdeck_tasks.audit.writing.bulk import driver_errors, driver_of
from techdeck_tasks.audit.writing.writer import MAX_CLOCK_SKEW
from techdeck_tasks.errors import WorkerLostError
from techdeck_tasks.keyring import KeySet
from techdeck_tasks.storage.database import transaction

SETTLING = timedelta(minutes=10)
"""So long an event may be behind a later one of its producer, and a row without a checkpoint over it."""

Progress = Callable[[int, int], None]
"""Told of the rows done and of those there are in all."""

_WORTH_A_PROCESS = 2
"""Stretches a process; with fewer, its start costs more than it saves."""

_HEADS = text("SELECT writer_id, writer_seq, row_hash FROM audit_writer_head")

_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
_EXPORT_SNAPSHOT = text("SELECT pg_export_snapshot()")

# Both tables are written in one transaction: what is in one of them only was removed from the other.
_MATCHED = text("""
    SELECT e.event_id IS NULL AS row_missing, i.event_id IS NULL AS id_missing, count(e.event_id) AS rows,
        count(*) FILTER (WHERE e.content_digest IS DISTINCT FROM i.content_digest) AS number,
        min(CAST(event_id AS text))
            FILTER (WHERE e.content_digest IS DISTINCT FROM i.content_digest) AS example
    FROM (SELECT * FROM audit_event WHERE occurred_at >= :since) e
    FULL JOIN (SELECT * FROM audit_event_id WHERE occurred_at >= :since) i USING (occurred_at, event_id)
    GROUP BY row_missing, id_missing ORDER BY row_missing, id_missing
""")
# The chains are read by an index. A row that it does not lead to must show: it is there for other searches.
_WITHOUT_INDEXES = text("""
    SELECT set_config(name, :setting, true)
    FROM unnest(ARRAY['enable_indexscan', 'enable_indexonlyscan', 'enable_bitmapscan']) AS name
""")

_UNCOVERED = text("""
    SELECT writer_seq FROM audit_event
    WHERE writer_id = :writer_id AND writer_seq > :seq
    AND recorded_at < now() - CAST(:settling AS interval)
    ORDER BY writer_seq LIMIT 1
""")


def verify(
    engine: Engine,
    settling: timedelta = SETTLING,
    *,
    keys: KeySet | None = None,
    since: datetime | None = None,
    sink: SegmentStore | None = None,
    archive: Archive | None = None,
    processes: int = 1,
    on_progress: Progress = lambda _done, _total: None,
) -> VerifyReport:
    """Recompute every digest and chain from the rows; stored hashes are compared, never trusted.

    Args:
        engine: the database.
        settling: gaps in a producer's numbers count only before its events that were recorded longer ago.
        keys: the public keys whose checkpoints and tombstones are trusted; None looks at chains alone.
        since: begin at the last checkpoint made at or before; what is older was verified before.
        sink: the backup to compare with.
        archive: where dropped months are; each is compared with its tombstone.
        processes: how many recompute; the database's own work comes on top, on one connection more.
        on_progress: told of each stretch done.

    Raises:
        ServiceUnavailableError: PostgreSQL is away.
        WorkerLostError: one of the processes was killed.
        OSError: the sink or the archive cannot be read.
    """
    findings: list[Finding] = []
    comparing: list[psycopg.Connection] = []
    with (
        transaction(engine) as connection,
        ThreadPoolExecutor(1, "audit-verify") as beside,
        _ended_with(comparing),
    ):
        # One snapshot: rows that are being written meanwhile are seen with their head, or not at all.
        connection.execute(_ONE_SNAPSHOT)
        if keys is not None:
            schema = check_schema(connection)
            findings += schema.findings
            if not schema.readable:
                return VerifyReport(0, 0, tuple(findings))
        evidence = gather(connection, SignatureCheck(keys), since) if keys is not None else Evidence()
        findings += evidence.findings
        first_time = datetime.min.replace(tzinfo=UTC)
        if evidence.base is not None:
            first_time = evidence.base.made_at - MAX_CLOCK_SKEW
        # PostgreSQL compares its tables in one process while another one hands out the rows.
        snapshot = connection.execute(_EXPORT_SNAPSHOT).scalar_one()
        compared = beside.submit(
            _compare_tables, engine, snapshot, evidence, settling, first_time, comparing=comparing
        )
        chains = _check_chains(connection, evidence, processes, on_progress, findings)
        matched, producers = compared.result()
        rows = sum(chain.rows for chain in chains.values())
        findings += _unmatched_ids(matched, rows if evidence.base is None else None)
        findings += producers.findings
        if keys is not None:
            findings += _uncovered_rows(connection, evidence, chains, settling)
            findings += check_holds(connection, evidence.tombstones, settling)
            findings += check_keys(connection, evidence.tombstones, settling, first_time)
            findings += check_reports(connection, evidence.tombstones, settling)
            findings += check_incidents(connection, evidence.tombstones, settling)
    segments = 0
    if sink is not None and keys is not None:
        segments, differences = check_sink(sink, SignatureCheck(keys), evidence)
        findings += differences
        findings += check_sink_keys(engine, sink)
    old_tombstones = 0
    if archive is not None and keys is not None:
        findings += check_archive(archive, SignatureCheck(keys), evidence)
        old_tombstones = sum(not tombstone.in_archive for tombstone in evidence.tombstones)
    return VerifyReport(
        rows,
        sum(chain.rows > 0 for chain in chains.values()),
        tuple(findings),
        evidence.checkpoints,
        segments,
        producers.losses,
        old_tombstones,
    )


def _check_chains(
    connection: Connection,
    evidence: Evidence,
    processes: int,
    on_progress: Progress,
    findings: list[Finding],
) -> dict[str, ChainJudge]:
    heads = {
        row.writer_id: Head(row.writer_id, row.writer_seq, bytes(row.row_hash))
        for row in connection.execute(_HEADS)
    }
    start = evidence.start()
    dropped = evidence.dropped_runs()
    known = {
        writer: {seq: head.row_hash for seq, head in signed.items()}
        for writer, signed in evidence.heads.items()
    }
    total = sum(max(head.seq, 0) for head in heads.values()) - sum(head.seq for head in start.values())
    done = 0
    chains: dict[str, ChainJudge] = {}

    def chain_of(writer_id: str) -> ChainJudge:
        if writer_id not in chains:
            begin = start.get(writer_id) or Head.genesis(writer_id)
            chains[writer_id] = ChainJudge(begin, dropped.get(writer_id, ()))
        return chains[writer_id]

    stretches = list(find_stretches(connection, start, known))
    with _scanned(connection, stretches, processes) as scans:
        for scanned in scans:
            findings.extend(chain_of(scanned.stretch.writer_id).follow(scanned))
            done += scanned.rows
            on_progress(done, max(done, total))
    for writer_id in sorted(heads.keys() | evidence.heads.keys() | chains.keys()):
        signed = evidence.heads.get(writer_id, {})
        findings.extend(chain_of(writer_id).close(heads.get(writer_id), signed))
    return chains


@contextmanager
def _scanned(
    connection: Connection, stretches: Sequence[Stretch], processes: int
) -> Iterator[Iterable[Scan]]:
    driver = driver_of(connection)
    with driver_errors("COPY audit_event TO STDOUT"):
        if processes < 2 or len(stretches) < _WORTH_A_PROCESS * processes:  # noqa: PLR2004 - one is no pool
            yield map(partial(scan, driver), stretches)
            return
        snapshot = connection.execute(_EXPORT_SNAPSHOT).scalar_one()
        # Not forked: a worker's threads and connections must not be copied.
        try:
            with ProcessPoolExecutor(
                processes,
                multiprocessing.get_context("spawn"),
                join_snapshot,
                (driver.info.dsn, driver.info.password, snapshot),
            ) as pool:
                try:
                    with _interrupts_held_back():
                        scans = pool.map(scan_in_pool, stretches)
                    yield scans
                finally:
                    # Who interrupts waits for the stretches in hand and not for the whole log.
                    pool.shutdown(cancel_futures=True)
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a process that recomputed the log was killed or could not connect: nothing is verified; "
                "look for want of memory, or lower TECHDECK_AUDIT_VERIFY_PROCESSES",
                operation="audit verify",
                original_error=error,
            ) from None


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that Ctrl-C, which a terminal sends to all, does not reach: this one ends them."""
    # What starts the processes' helper lets signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ended_with(comparing: Iterable[psycopg.Connection]) -> Iterator[None]:
    """End what PostgreSQL does beside where this is interrupted or fails: nobody waits for its result."""
    try:
        yield
    except BaseException:
        for connection in comparing:
            with suppress(psycopg.Error):
                connection.cancel_safe()
        raise


def _compare_tables(
    engine: Engine,
    snapshot: str,
    evidence: Evidence,
    settling: timedelta,
    since: datetime,
    *,
    comparing: list[psycopg.Connection],
) -> tuple[Sequence[Row[Any]], ProducerCheck]:
    """Return, in the same snapshot, how rows and ids match, and what the producers' numbers say."""
    with transaction(engine) as connection:
        comparing.append(driver_of(connection))
        connection.execute(_ONE_SNAPSHOT)
        driver_of(connection).execute(SET_SNAPSHOT.format(snapshot))
        connection.execute(_WITHOUT_INDEXES, {"setting": "off"})
        groups = connection.execute(_MATCHED, {"since": since}).all()
        connection.execute(_WITHOUT_INDEXES, {"setting": "on"})
        active_since = None if evidence.base is None else since
        return groups, check_producers(connection, evidence.dropped_numbers(), settling, active_since)


def _unmatched_ids(groups: Sequence[Row[Any]], chained: int | None) -> Iterator[Finding]:
    """Yield what differs between rows and ids, and rows that are in no chain.

    Args:
        groups: how rows and ids match.
        chained: how many rows the chains led to; None: not all of them were followed.
    """
    there = sum(found.rows for found in groups)
    if chained is not None and there != chained:
        detail = f"the table holds {there} rows, its index by writer leads to {chained}"
        yield Finding(Verdict.ROW_INSERTED, "audit_event", detail)
    for found in groups:
        if found.number == 0:
            continue
        if found.row_missing:
            detail = f"{found.number} ids on record have no row, the first is {found.example}"
            yield Finding(Verdict.ROWS_REMOVED, "audit_event", detail)
        elif found.id_missing:
            detail = f"{found.number} rows have no id on record, the first is {found.example}"
            yield Finding(Verdict.ID_MISSING, "audit_event_id", detail)
        else:
            detail = f"{found.number} rows are on record with other content, the first is {found.example}"
            yield Finding(Verdict.DUPLICATE_ID_OTHER_CONTENT, "audit_event_id", detail)


def _uncovered_rows(
    connection: Connection, evidence: Evidence, writers: Iterable[str], settling: timedelta
) -> Iterator[Finding]:
    heads: Mapping[str, int] = {}
    if evidence.newest is not None:
        heads = {head.writer_id: head.seq for head in evidence.newest.heads}
    for writer_id in writers:
        parameters = {"writer_id": writer_id, "seq": heads.get(writer_id, 0), "settling": settling}
        seq = connection.execute(_UNCOVERED, parameters).scalar()
        if seq is not None:
            detail = f"row {seq} of {writer_id} and those after it are older than {settling}, unsigned"
            yield Finding(Verdict.CHECKPOINT_OVERDUE, CHECKPOINTS, detail)
