"""Attacks by who may do everything in the database and has not the signing key: each has its own finding."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text

from techdeck_tasks.audit.canonical import microseconds
from techdeck_tasks.audit.event import AuditEvent, new_event_id
from techdeck_tasks.audit.models import AuditTombstone
from techdeck_tasks.audit.proof.chain import Head, hash_row
from techdeck_tasks.audit.proof.checkpoint import Checkpoint, Checkpointer
from techdeck_tasks.audit.proof.finding import Finding, Verdict, VerifyReport
from techdeck_tasks.audit.proof.key_check import RESEALING
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_export import LOOK_AGAIN_S, SinkExporter
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.tombstone import Tombstone, row_of
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import CHECKPOINT_PRIVATE_KEYS, CHECKPOINT_PUBLIC_KEYS, KeySet
from techdeck_tasks.testing.clock import FakeClock

ONE, TWO = "audit@one", "audit@two"
LAST_MONTH = (datetime.now(UTC).replace(day=1) - timedelta(days=3)).replace(hour=12)
Seal = Callable[[int], list[SealedEvent]]


@pytest.fixture(scope="module")
def open_database(databases: Callable[[], AbstractContextManager[Engine]]) -> Iterator[Engine]:
    """A database whose triggers a superuser has switched off."""
    with databases() as engine:
        yield engine


@pytest.fixture
def engine(open_database: Engine) -> Engine:
    """The open database, emptied."""
    with open_database.begin() as connection:
        months = connection.execute(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN"
                 " ('audit_event'::regclass, 'audit_event_id'::regclass)")
        ).scalars().all()  # fmt: skip
        for month in months:
            connection.execute(text(f"DROP TABLE {month}"))
        for table in (
            "audit_event",
            "audit_event_id",
            "audit_writer_head",
            "audit_checkpoint",
            "audit_tombstone",
        ):
            connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            connection.execute(text(f"TRUNCATE {table}"))
    return open_database


@pytest.fixture
def signer(keys_dir: Path) -> Signer:
    return Signer(KeySet.load(keys_dir.parent / "signer" / CHECKPOINT_PRIVATE_KEYS))


@pytest.fixture
def public_keys(keys_dir: Path) -> KeySet:
    return KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)


@pytest.fixture
def checkpointer(engine: Engine, signer: Signer) -> Checkpointer:
    return Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 1000)


@pytest.fixture
def store(tmp_path: Path) -> SegmentStore:
    return SegmentStore((tmp_path / "backup").as_uri())


@pytest.fixture
def exporter(engine: Engine, store: SegmentStore) -> SinkExporter:
    return SinkExporter(engine, store, FakeClock())


@pytest.fixture
def log(engine: Engine, seal: Seal, checkpointer: Checkpointer, exporter: SinkExporter) -> Engine:
    """Ten rows of one writer, five of another, under two checkpoints, copied; then two rows more."""
    events = seal(17)
    for start, stop, name in ((0, 5, ONE), (5, 10, TWO), (10, 15, ONE), (15, 17, ONE)):
        AuditWriter(engine, name, SystemClock()).write(events[start:stop])
        if stop in {10, 15}:
            checkpointer.make()
    exporter.catch_up()
    return engine


@pytest.fixture
def check(engine: Engine, public_keys: KeySet) -> Callable[..., set[tuple[Verdict, str]]]:
    """Verifies as the command does, and returns what was found where."""

    def check(
        sink: SegmentStore | None = None, settling: timedelta = timedelta(hours=1)
    ) -> set[tuple[Verdict, str]]:
        report = verify(engine, settling, keys=public_keys, sink=sink)
        return {(finding.verdict, finding.chain) for finding in _besides_the_triggers(report)}

    return check


Check = Callable[..., set[tuple[Verdict, str]]]


def _besides_the_triggers(report: VerifyReport) -> tuple[Finding, ...]:
    """Leave out that the triggers are switched off: none of these attacks is possible with them."""
    return tuple(finding for finding in report.findings if "the trigger refuse_" not in finding.detail)


def _run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _cut(engine: Engine, writer: str, keep: int) -> None:
    """Cut a chain without a trace in the tables: rows, ids and head."""
    _run(
        engine,
        "DELETE FROM audit_event_id WHERE event_id IN (SELECT event_id FROM audit_event"
        f" WHERE writer_id = '{writer}' AND writer_seq > {keep})",
        f"DELETE FROM audit_event WHERE writer_id = '{writer}' AND writer_seq > {keep}",
        f"UPDATE audit_writer_head SET writer_seq = {keep}, row_hash = (SELECT row_hash FROM audit_event"
        f" WHERE writer_id = '{writer}' AND writer_seq = {keep}) WHERE writer_id = '{writer}'",
    )


def _rewrite(engine: Engine, writer: str, first: int) -> None:
    """Change a chain from row `first` on and compute every hash anew, as the writer would have."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT * FROM audit_event WHERE writer_id = :w AND writer_seq >= :s ORDER BY writer_seq"),
            {"w": writer, "s": first},
        ).all()
        head = Head(writer, first - 1, bytes(rows[0].prev_hash))
        for row in rows:
            recorded_at = row.recorded_at + timedelta(microseconds=1)
            following = head.next(bytes(row.content_digest), recorded_at)
            connection.execute(
                text(
                    "UPDATE audit_event SET recorded_at = :at, prev_hash = :prev, row_hash = :hash"
                    " WHERE writer_id = :w AND writer_seq = :s"
                ),
                {
                    "at": recorded_at,
                    "prev": head.row_hash,
                    "hash": following.row_hash,
                    "w": writer,
                    "s": following.seq,
                },
            )
            head = following
        connection.execute(
            text("UPDATE audit_writer_head SET row_hash = :hash WHERE writer_id = :w"),
            {"hash": head.row_hash, "w": writer},
        )


def test_an_untouched_log_and_its_sink_have_no_finding(
    log: Engine, store: SegmentStore, public_keys: KeySet
) -> None:
    report = verify(log, timedelta(hours=1), keys=public_keys, sink=store)
    assert _besides_the_triggers(report) == ()
    assert (report.rows, report.writers, report.checkpoints, report.segments) == (17, 2, 2, 2)


def test_a_quiet_log_gets_empty_checkpoints_that_verify(
    engine: Engine, checkpointer: Checkpointer, exporter: SinkExporter, store: SegmentStore, check: Check
) -> None:
    assert [checkpointer.make().seq for _ in range(3)] == [1, 2, 3]
    assert exporter.catch_up() == 3
    assert check(store) == set()


# -- the end of a chain -----------------------------------------------------------------------------------


def test_a_tail_cut_without_a_trace_before_the_checkpoint_is_named(log: Engine, check: Check) -> None:
    _cut(log, ONE, 8)
    assert (Verdict.TAIL_CUT, ONE) in check()


def test_a_tail_cut_since_the_last_checkpoint_is_named_by_a_later_event_of_its_producer(
    log: Engine, seal: Seal, check: Check
) -> None:
    _cut(log, ONE, 10)
    AuditWriter(log, TWO, SystemClock()).write(seal(1))
    verdicts = {verdict for verdict, _ in check(settling=timedelta(0))}
    assert Verdict.PRODUCER_GAP in verdicts


def test_the_window_is_from_the_last_checkpoint_to_the_producers_next_event(
    log: Engine, check: Check
) -> None:
    _cut(log, ONE, 10)
    assert check() == set()


def test_a_whole_writer_removed_with_its_head_is_named(log: Engine, check: Check) -> None:
    _run(
        log,
        f"DELETE FROM audit_event_id WHERE event_id IN"
        f" (SELECT event_id FROM audit_event WHERE writer_id = '{TWO}')",
        f"DELETE FROM audit_event WHERE writer_id = '{TWO}'",
        f"DELETE FROM audit_writer_head WHERE writer_id = '{TWO}'",
    )
    assert (Verdict.WRITER_REMOVED, TWO) in check()


def test_a_chain_rewritten_with_every_hash_recomputed_is_named(log: Engine, check: Check) -> None:
    _rewrite(log, ONE, 4)
    assert check() == {(Verdict.HISTORY_REWRITTEN, ONE)}


def test_a_rewriting_that_was_signed_over_afterwards_is_named(
    log: Engine, checkpointer: Checkpointer, check: Check
) -> None:
    _rewrite(log, ONE, 4)
    checkpointer.make()
    assert check() == {(Verdict.HISTORY_REWRITTEN, ONE)}


def test_a_cut_tail_that_grew_again_is_named(
    log: Engine, seal: Seal, checkpointer: Checkpointer, check: Check
) -> None:
    _cut(log, ONE, 8)
    AuditWriter(log, ONE, SystemClock()).write(seal(9))
    checkpointer.make()
    assert (Verdict.HISTORY_REWRITTEN, ONE) in check()


# -- checkpoints ------------------------------------------------------------------------------------------


def test_a_removed_checkpoint_is_named(log: Engine, check: Check) -> None:
    _run(log, "DELETE FROM audit_checkpoint WHERE checkpoint_seq = 1")
    assert check() == {(Verdict.CHECKPOINT_REMOVED, "audit_checkpoint")}


def test_the_newest_checkpoints_removed_with_the_rows_under_them_are_named_by_the_sink(
    log: Engine, store: SegmentStore, check: Check
) -> None:
    _cut(log, ONE, 5)
    _run(log, "DELETE FROM audit_checkpoint WHERE checkpoint_seq = 2")
    assert check() == set()
    assert check(store) == {(Verdict.ROLLED_BACK, "sink")}


def test_all_checkpoints_removed_are_named_without_a_sink_too(log: Engine, check: Check) -> None:
    _run(log, "DELETE FROM audit_checkpoint")
    assert check(settling=timedelta(0)) == {(Verdict.CHECKPOINT_OVERDUE, "audit_checkpoint")}


@pytest.mark.parametrize(
    "change",
    [
        "statement = set_byte(statement, 40, get_byte(statement, 40) # 1)",
        "signature = set_byte(signature, 3, get_byte(signature, 3) # 1)",
        "made_at = made_at - interval '1 day'",
        "rows = rows - 1",
        "checkpoint_seq = 3",
    ],
)
def test_a_changed_checkpoint_is_named(change: str, log: Engine, check: Check) -> None:
    _run(log, f"UPDATE audit_checkpoint SET {change} WHERE checkpoint_seq = 2")
    assert (Verdict.CHECKPOINT_FORGED, "audit_checkpoint") in check()


@pytest.mark.parametrize("own_id", [True, False])
def test_a_checkpoint_under_another_key_is_named(
    own_id: bool, log: Engine, public_keys: KeySet, check: Check
) -> None:
    # Under an id of its own, or under the id of a key that is trusted.
    key_id = "forger" if own_id else public_keys.active
    forger = Signer(KeySet(key_id, {key_id: secrets.token_bytes(32)}))
    Checkpointer(log, forger, SystemClock(), timedelta(hours=1), 1000).make()
    verdict = Verdict.UNKNOWN_KEY if own_id else Verdict.CHECKPOINT_FORGED
    assert check() == {(verdict, "audit_checkpoint")}


def test_a_checkpoint_that_follows_from_none_is_named(log: Engine, signer: Signer, check: Check) -> None:
    with log.begin() as connection:
        row = connection.execute(text("SELECT * FROM audit_checkpoint WHERE checkpoint_seq = 2")).one()
        forked = replace(Checkpoint.decode(row.statement), prev_hash=b"\0" * 32)
        signed = signer.sign(forked.encode())
        connection.execute(
            text("UPDATE audit_checkpoint SET statement = :a, signature = :b WHERE checkpoint_seq = 2"),
            {"a": signed.statement, "b": signed.signature},
        )
    assert check() == {(Verdict.CHECKPOINT_FORGED, "audit_checkpoint")}


# -- the database as a whole ------------------------------------------------------------------------------


def test_an_older_copy_of_the_database_is_named_and_stays_so_when_it_goes_on(
    log: Engine, seal: Seal, store: SegmentStore, checkpointer: Checkpointer, check: Check
) -> None:
    _cut(log, ONE, 5)
    _run(log, "DELETE FROM audit_checkpoint WHERE checkpoint_seq = 2")
    AuditWriter(log, ONE, SystemClock()).write(seal(3))
    checkpointer.make()
    checkpointer.make()
    assert check() == set()
    assert (Verdict.ROLLED_BACK, "sink") in check(store)


def test_a_restored_database_is_reported_by_the_exporter(
    log: Engine, store: SegmentStore, caplog: pytest.LogCaptureFixture
) -> None:
    _run(log, "DELETE FROM audit_checkpoint WHERE checkpoint_seq = 2")
    assert SinkExporter(log, store, FakeClock()).catch_up() == 0
    assert "it was rolled back" in caplog.text


# -- partitions and tombstones ----------------------------------------------------------------------------


@pytest.fixture
def two_months(
    engine: Engine,
    sealer: Sealer,
    new_event: Callable[..., AuditEvent],
    checkpointer: Checkpointer,
) -> Engine:
    """Rows of last month and of this one, in turns, under a checkpoint; last month's producer went on."""
    old = int(LAST_MONTH.timestamp() * 1_000_000_000)
    writer = AuditWriter(engine, ONE, SystemClock())
    for moment in (old, None, old, None):
        ids = [new_event_id(moment) for _ in range(3)]
        writer.write([sealer.seal(new_event(event_id=event_id)) for event_id in ids])
    checkpointer.make()
    return engine


def _drop(engine: Engine, how: str) -> None:
    month = f"p{LAST_MONTH:%Y%m}"
    for parent in ("audit_event", "audit_event_id"):
        _run(engine, how.format(parent=parent, child=f"{parent}_{month}"))


DROP = "DROP TABLE {child}"


@pytest.mark.parametrize("how", [DROP, "ALTER TABLE {parent} DETACH PARTITION {child}"])
def test_a_partition_that_is_gone_is_named(how: str, two_months: Engine, check: Check) -> None:
    _drop(two_months, how)
    assert {(Verdict.PARTITION_MISSING, "audit_event"), (Verdict.ROWS_REMOVED, ONE)} <= check()
    _drop(two_months, "DROP TABLE IF EXISTS {child}")


def test_a_truncated_partition_is_named(two_months: Engine, check: Check) -> None:
    _drop(two_months, "ALTER TABLE {child} DISABLE TRIGGER USER")
    _drop(two_months, "TRUNCATE {child}")
    assert (Verdict.ROWS_REMOVED, ONE) in check()


def _signed(signer: Signer, tombstone: Tombstone) -> dict[str, object]:
    return row_of(tombstone, signer.sign(tombstone.encode()))


def _bury(engine: Engine, signer: Signer, change: Callable[[Tombstone], Tombstone] = lambda it: it) -> None:
    with engine.begin() as connection:
        tombstone = Tombstone.survey(
            connection,
            date(LAST_MONTH.year, LAST_MONTH.month, 9),
            archive_digest=b"\1" * 32,
            made_at=datetime.now(UTC),
            made_by="anna",
        )
        assert Tombstone.decode(tombstone.encode()) == tombstone
        connection.execute(insert(AuditTombstone).values(_signed(signer, change(tombstone))))


def test_a_partition_under_a_valid_tombstone_is_no_finding(
    two_months: Engine, signer: Signer, check: Check
) -> None:
    _bury(two_months, signer)
    _drop(two_months, DROP)
    assert check(settling=timedelta(0)) == set()


def test_a_tombstone_signed_by_somebody_else_accounts_for_nothing(
    two_months: Engine, public_keys: KeySet, check: Check
) -> None:
    _bury(two_months, Signer(KeySet(public_keys.active, {public_keys.active: secrets.token_bytes(32)})))
    _drop(two_months, DROP)
    assert {
        (Verdict.TOMBSTONE_FORGED, "audit_tombstone"),
        (Verdict.PARTITION_MISSING, "audit_event"),
        (Verdict.ROWS_REMOVED, ONE),
    } <= check()


def test_a_tombstone_moved_to_another_month_accounts_for_nothing(
    two_months: Engine, signer: Signer, check: Check
) -> None:
    _bury(two_months, signer)
    _run(two_months, "UPDATE audit_tombstone SET month = month - interval '1 year'")
    _drop(two_months, DROP)
    assert {(Verdict.TOMBSTONE_FORGED, "audit_tombstone"), (Verdict.ROWS_REMOVED, ONE)} <= check()


def test_a_row_removed_beside_a_dropped_month_is_named(
    two_months: Engine, signer: Signer, check: Check
) -> None:
    _bury(two_months, signer)
    _drop(two_months, DROP)
    _run(two_months, f"DELETE FROM audit_event WHERE writer_id = '{ONE}' AND writer_seq = 5")
    assert (Verdict.ROWS_REMOVED, ONE) in check()


# -- single rows ------------------------------------------------------------------------------------------


def test_a_document_under_the_name_of_another_tenant_is_named(
    engine: Engine, sealer: Sealer, new_event: Callable[..., AuditEvent], keys_dir: Path, check: Check
) -> None:
    other = replace(sealer.seal(new_event()).record, tenant="hospital")
    AuditWriter(engine, ONE, SystemClock()).write([sealer.seal(new_event()), sealer.seal(new_event())])
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE audit_event SET tenant = :tenant, sealed_document = :sealed WHERE writer_seq = 2"),
            {"tenant": other.tenant, "sealed": other.sealed_document},
        )
    assert (Verdict.ROW_EDITED, ONE) in check()


@pytest.mark.parametrize("edit", ["stage = ''", "subject_index = '\\x'"])
def test_null_is_not_empty(edit: str, log: Engine, check: Check) -> None:
    _run(log, f"UPDATE audit_event SET {edit} WHERE writer_id = '{ONE}' AND writer_seq = 4")
    assert check() == {(Verdict.ROW_EDITED, ONE)}


def test_a_data_key_is_not_another(log: Engine, check: Check) -> None:
    _run(
        log,
        f"UPDATE audit_event SET key_id = gen_random_uuid() WHERE writer_id = '{ONE}' AND writer_seq = 4",
    )
    assert check() == {(Verdict.ROW_EDITED, ONE), (Verdict.DATA_KEY_REMOVED, "audit_data_key")}


def test_a_row_from_the_future_is_named_though_its_hashes_are_right(
    engine: Engine, seal: Seal, check: Check
) -> None:
    (event,) = seal(1)
    AuditWriter(engine, ONE, SystemClock()).write([event])
    early = event.record.occurred_at - timedelta(days=2)
    genesis = Head.genesis(ONE).row_hash
    forged = hash_row(genesis, ONE.encode(), 1, microseconds(early), event.content_digest)
    _run(
        engine,
        f"UPDATE audit_event SET recorded_at = '{early.isoformat()}', row_hash = '\\x{forged.hex()}'",
        f"UPDATE audit_writer_head SET row_hash = '\\x{forged.hex()}'",
    )
    assert check(settling=timedelta(days=9)) == {(Verdict.ROW_FROM_THE_FUTURE, ONE)}


def test_an_id_with_other_content_is_refused_and_one_forced_in_is_named(
    log: Engine, sealer: Sealer, new_event: Callable[..., AuditEvent], check: Check
) -> None:
    event_id = new_event_id()
    first, second = (sealer.seal(new_event(event_id=event_id, service=name)) for name in ("lab", "ward"))
    writer = AuditWriter(log, TWO, SystemClock())
    assert writer.write([first]).written == 1
    ((refused, reason),) = writer.write([second]).refused
    assert (refused, reason) == (second, "its id is on record with other content")
    digest = second.content_digest.hex()
    _run(log, f"UPDATE audit_event_id SET content_digest = '\\x{digest}' WHERE event_id = '{event_id}'")
    assert check() == {(Verdict.DUPLICATE_ID_OTHER_CONTENT, "audit_event_id")}


def test_every_stored_hash_recomputed_from_edited_content_convinces_nobody(log: Engine, check: Check) -> None:
    # The digests agree with each other, the chain and the head agree: only what was signed does not.
    _run(log, f"UPDATE audit_event SET content_digest = sha256(content_digest) WHERE writer_id = '{ONE}'")
    _rewrite(log, ONE, 1)
    verdicts = check()
    assert {(Verdict.ROW_EDITED, ONE), (Verdict.HISTORY_REWRITTEN, ONE)} <= verdicts


# -- the sink ---------------------------------------------------------------------------------------------


def _segment(tmp_path: Path, number: int) -> Path:
    return tmp_path / "backup" / "segments" / "00000000" / f"{number:012d}.jsonl"


def test_a_segment_holds_rows_sealed_and_belongs_to_its_owner_alone(log: Engine, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in _segment(tmp_path, 1).read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["row"] * 10 + ["checkpoint"]
    assert "the importer failed" not in _segment(tmp_path, 1).read_text()
    assert lines[0]["record"]["service"] == "lab"
    assert _segment(tmp_path, 1).stat().st_mode & 0o777 == 0o600
    assert len(list((tmp_path / "backup" / "keys").iterdir())) == 1


def test_an_unlinked_segment_is_named_reported_and_written_again(
    log: Engine,
    engine: Engine,
    store: SegmentStore,
    tmp_path: Path,
    check: Check,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    exporter = SinkExporter(engine, store, clock)
    exporter.catch_up()
    before = _segment(tmp_path, 1).read_bytes()
    _segment(tmp_path, 1).unlink()
    assert check(store) == {(Verdict.SINK_DIFFERS, "sink")}
    clock.sleep(LOOK_AGAIN_S)
    assert exporter.catch_up() == 1
    assert "1 segments were removed from the audit sink" in caplog.text
    assert _segment(tmp_path, 1).read_bytes() == before
    assert check(store) == set()


def test_a_data_key_removed_from_the_sink_is_reported_and_written_again(
    log: Engine,
    engine: Engine,
    seal: Seal,
    checkpointer: Checkpointer,
    store: SegmentStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    exporter = SinkExporter(engine, store, clock)
    exporter.catch_up()
    checkpointer.make()
    exporter.catch_up()
    (key_id,) = store.keys()
    store.forget_key(key_id)
    clock.sleep(LOOK_AGAIN_S)
    exporter.catch_up()
    assert "1 data keys were removed from the audit sink" in caplog.text
    assert store.keys() == {key_id}


@pytest.mark.parametrize(
    "change", ["sealed_key = '\\x00112233'", "sealed_key = sealed_key || '\\x00'", "recipient_id = 'nobody'"]
)
def test_a_data_key_that_was_overwritten_in_the_database_is_named_by_the_sink(
    change: str, log: Engine, store: SegmentStore, check: Check
) -> None:
    (key_id,) = store.keys()
    _run(
        log,
        "ALTER TABLE audit_data_key DISABLE TRIGGER USER",
        f"UPDATE audit_data_key SET {change} WHERE key_id = '{key_id}'",
        *(
            f"ALTER TABLE audit_data_key ENABLE ALWAYS TRIGGER {name}"
            for name in ("refuse_change", "refuse_delete", "refuse_truncate")
        ),
    )
    assert check(store) == {(Verdict.DATA_KEY_CHANGED, "audit_data_key")}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"recipient_id": "r", "sealed_key": "AA=="}', b"[" * 200_000]
)
def test_a_data_key_that_was_overwritten_in_the_sink_is_named(
    content: bytes, log: Engine, store: SegmentStore, tmp_path: Path, check: Check
) -> None:
    (key_id,) = store.keys()
    assert check(store) == set()
    (tmp_path / "backup" / "keys" / f"{key_id}.json").write_bytes(content)
    (tmp_path / "backup" / "keys" / f"{'-' * 36}.json").write_bytes(b"a name that is no id is no data key")
    assert check(store) == {(Verdict.DATA_KEY_CHANGED, "audit_data_key")}


def test_a_data_key_that_is_being_sealed_anew_is_no_finding(
    log: Engine, engine: Engine, store: SegmentStore, check: Check
) -> None:
    # The sink has it first; who verifies waits for the commit.
    (key_id,) = store.keys()
    with ThreadPoolExecutor(1) as pool, engine.connect() as resealing:
        resealing.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": RESEALING})
        sealed = resealing.execute(
            text(
                "UPDATE audit_data_key SET sealed_key = sealed_key || '\\x01', recipient_id = 'next'"
                " WHERE key_id = :key_id RETURNING *"
            ),
            {"key_id": key_id},
        ).one()
        store.write_key(sealed)
        checking = pool.submit(check, store)
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
            while not watching.execute(waiting).scalar_one() and not checking.done():
                pass
        resealing.commit()
        assert checking.result() == set()


def test_a_data_key_destroyed_while_it_is_copied_does_not_stay_in_the_sink(
    log: Engine, engine: Engine, tmp_path: Path
) -> None:
    class Meanwhile(SegmentStore):
        def write_key(self, key: Any) -> None:
            statement = "UPDATE audit_data_key SET sealed_key = '', erased_at = now() WHERE key_id = :key_id"
            with engine.begin() as connection:
                connection.execute(text(statement), {"key_id": key.key_id})
            self.forget_key(str(key.key_id))
            super().write_key(key)

    late = Meanwhile((tmp_path / "late").as_uri())
    assert SinkExporter(engine, late, FakeClock()).catch_up() == 2
    assert late.keys() == set()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [lines[0].replace(b'"lab"', b'"law"'), *lines[1:]],
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: lines[:-1],
        lambda lines: [*lines, lines[0]],
        lambda lines: [b"{}"],
        lambda lines: [b"\xff"],
        lambda lines: [b"[" * 200_000, *lines[1:]],
        lambda lines: [b'{"kind":"row","record":[]}', *lines[1:]],
        lambda lines: [lines[0].replace(b'"retention_days":2190', b'"retention_days":1e400'), *lines[1:]],
        lambda lines: [lines[0].replace(b'"writer_seq":1', b'"writer_seq":1e400'), *lines[1:]],
        lambda lines: [lines[0].replace(b'"event_id":"', b'"event_id":0,"x":"'), *lines[1:]],
    ],
    ids=[
        *("edited", "removed", "reordered", "unsigned", "appended", "empty", "garbage"),
        *("deep", "no record", "no number", "no place", "no id"),
    ],
)
def test_a_changed_segment_is_named(
    spoil: Callable[[list[bytes]], list[bytes]],
    log: Engine,
    store: SegmentStore,
    tmp_path: Path,
    check: Check,
) -> None:
    path = _segment(tmp_path, 1)
    path.write_bytes(b"\n".join(spoil(path.read_bytes().splitlines())) + b"\n")
    assert check(store) == {(Verdict.SINK_DIFFERS, "sink")}


def test_a_sink_that_was_away_is_caught_up_with(
    log: Engine, seal: Seal, checkpointer: Checkpointer, check: Check
) -> None:
    late = SegmentStore(f"memory://{secrets.token_hex(6)}")
    AuditWriter(log, TWO, SystemClock()).write(seal(3))
    checkpointer.make()
    exporter = SinkExporter(log, late, FakeClock())
    assert (exporter.catch_up(), exporter.catch_up()) == (3, 0)
    assert check(late) == set()


# -- verifying since a checkpoint -------------------------------------------------------------------------


def test_what_came_after_a_checkpoint_is_verified_alone(
    log: Engine, checkpointer: Checkpointer, public_keys: KeySet, store: SegmentStore
) -> None:
    report = verify(log, timedelta(hours=1), keys=public_keys, since=datetime.now(UTC), sink=store)
    assert (report.rows, report.checkpoints, _besides_the_triggers(report)) == (2, 1, ())
    _run(log, f"UPDATE audit_event SET stage = '' WHERE writer_id = '{ONE}' AND writer_seq IN (4, 11)")
    report = verify(log, timedelta(hours=1), keys=public_keys, since=datetime.now(UTC))
    assert [finding.detail[:6] for finding in _besides_the_triggers(report)] == ["row 11"]


def test_a_checkpoint_dated_back_to_hide_what_it_covers_is_named(log: Engine, public_keys: KeySet) -> None:
    since = datetime.now(UTC) - timedelta(days=1)
    _run(log, "UPDATE audit_checkpoint SET made_at = made_at - interval '2 days' WHERE checkpoint_seq = 2")
    report = verify(log, timedelta(hours=1), keys=public_keys, since=since)
    assert report.rows == 17
    assert Verdict.CHECKPOINT_FORGED in {finding.verdict for finding in report.findings}


def test_several_processes_find_what_one_finds(
    log: Engine, public_keys: KeySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("techdeck_tasks.audit.proof.chain_scan.STRETCH_ROWS", 2)
    _run(
        log,
        f"UPDATE audit_event SET stage = '' WHERE writer_id = '{ONE}' AND writer_seq = 3",
        f"DELETE FROM audit_event WHERE writer_id = '{ONE}' AND writer_seq IN (7, 8)",
    )
    one, two = (verify(log, timedelta(hours=1), keys=public_keys, processes=number) for number in (1, 2))
    assert one == two
    assert {(finding.verdict, finding.detail) for finding in one.findings} >= {
        (Verdict.ROWS_REMOVED, "rows 7 to 8")
    }
