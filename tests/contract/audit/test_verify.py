"""Each way of tampering, by a superuser who switches the triggers off, has its own finding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import reduce

import pytest
from sqlalchemy import Engine, text

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.chain import Head, hash_row
from techdeck_tasks.audit.proof.finding import Verdict, VerifyReport
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing.gap import Gap
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database

Seal = Callable[[int], list[SealedEvent]]
Verdicts = set[tuple[Verdict, str]]
ONE, TWO = "audit@one", "audit@two"
ROWS = 10


@pytest.fixture(scope="module")
def open_database(databases: Callable[[], AbstractContextManager[Engine]]) -> Iterator[Engine]:
    """A database whose triggers a superuser has switched off."""
    with databases() as engine:
        with engine.begin() as connection:
            connection.execute(text("SELECT techdeck_audit_ensure_partition(CAST(now() AS date))"))
            for table, trigger in connection.execute(
                text(
                    "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname LIKE 'refuse%'"
                    " AND tgparentid = 0"
                )
            ).all():
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"))
        yield engine


@pytest.fixture
def engine(open_database: Engine) -> Engine:
    """The open database, emptied."""
    with open_database.begin() as connection:
        for parent in ("audit_event", "audit_event_id"):
            connection.execute(text(f"DROP TABLE IF EXISTS {parent}_p200102"))
        connection.execute(text("TRUNCATE audit_event, audit_event_id, audit_writer_head, audit_data_key"))
    return open_database


@pytest.fixture
def log(engine: Engine, seal: Seal) -> Engine:
    """Two writers' chains of ten rows each, of one producer, in turns of five."""
    events = seal(2 * ROWS)
    for start, name in ((0, ONE), (5, TWO), (10, ONE), (15, TWO)):
        AuditWriter(engine, name, SystemClock()).write(events[start : start + 5])
    return engine


def _tamper(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            assert connection.execute(text(statement)).rowcount != 0, statement


def _verify(engine: Engine) -> VerifyReport:
    return verify(engine, timedelta(0))


def _verdicts(engine: Engine) -> Verdicts:
    return {(finding.verdict, finding.chain) for finding in _verify(engine).findings}


def _producers_left_out(verdicts: Verdicts) -> Verdicts:
    return {(verdict, chain) for verdict, chain in verdicts if verdict is not Verdict.PRODUCER_GAP}


def test_an_untouched_log_has_no_finding(log: Engine) -> None:
    report = _verify(log)
    assert (report.ok, report.rows, report.writers, report.findings) == (True, 2 * ROWS, 2, ())


def test_an_empty_log_has_no_finding(engine: Engine) -> None:
    assert _verify(engine) == VerifyReport(0, 0, ())


def test_a_log_that_is_being_written_has_no_finding(
    engine: Engine, new_sealer: Callable[[], Sealer], new_event: Callable[..., AuditEvent]
) -> None:
    # One producer's events reach two workers in batches that overtake each other, as they do in practice.
    sealer = new_sealer()
    batches = [[sealer.seal(new_event()) for _ in range(20)] for _ in range(40)]
    done = threading.Event()

    def write(number: int) -> None:
        writer = AuditWriter(engine, f"audit@{number}", SystemClock())
        for batch in batches[number::2]:
            writer.write(batch)

    def watch() -> list[VerifyReport]:
        reports = []
        while not done.is_set():
            reports.append(verify(engine))
        return reports

    with ThreadPoolExecutor(3) as pool:
        watching = pool.submit(watch)
        for written in [pool.submit(write, number) for number in range(2)]:
            written.result()
        done.set()
    assert {finding for report in watching.result() for finding in report.findings} == set()
    assert _verify(engine).findings == ()


def test_an_edited_ciphertext_is_named(log: Engine) -> None:
    _tamper(
        log,
        "UPDATE audit_event SET sealed_document ="
        " set_byte(sealed_document, 20, get_byte(sealed_document, 20) # 1)"
        f" WHERE writer_id = '{ONE}' AND writer_seq = 4",
    )
    (finding,) = _verify(log).findings
    assert (finding.verdict, finding.chain) == (Verdict.ROW_EDITED, ONE)
    assert finding.detail.startswith("row 4, event ")


@pytest.mark.parametrize(
    "edit",
    [
        "tenant = 'another'",
        "severity = 'low'",
        "error_code = 'NONE'",
        "stage = ''",
        "attempt = NULL",
        "attempt = attempt + 1",
        "hipaa_related = NOT hipaa_related",
        "hipaa_notify = NOT hipaa_notify",
        "retention_days = 1",
        "producer_seq = 4000",
        "producer_id = gen_random_uuid()",
        "key_id = gen_random_uuid()",
        "user_index = '\\x00'",
        "subject_index = ''",
        "content_digest = sha256(content_digest)",
    ],
)
def test_an_edited_clear_column_is_named(edit: str, log: Engine) -> None:
    _tamper(log, f"UPDATE audit_event SET {edit} WHERE writer_id = '{ONE}' AND writer_seq = 4")
    assert (Verdict.ROW_EDITED, ONE) in _verdicts(log)


def test_a_row_moved_in_time_is_named(log: Engine) -> None:
    _tamper(
        log,
        "SELECT techdeck_audit_ensure_partition('2001-02-03')",
        "UPDATE audit_event SET occurred_at = '2001-02-03Z' WHERE writer_id = 'audit@one' AND writer_seq = 4",
    )
    assert (Verdict.ROW_EDITED, ONE) in _verdicts(log)


@pytest.mark.parametrize("moment", ["recorded_at - interval '1 microsecond'", "'infinity'", "'-infinity'"])
def test_another_time_of_recording_is_named(moment: str, log: Engine) -> None:
    _tamper(
        log, f"UPDATE audit_event SET recorded_at = {moment} WHERE writer_id = '{ONE}' AND writer_seq = 4"
    )
    assert _verdicts(log) == {(Verdict.CHAIN_BROKEN, ONE)}


def test_an_edit_with_its_digest_recomputed_breaks_the_chain(log: Engine) -> None:
    # Row and id get the digest that belongs to the edited content: digests alone prove nothing.
    digest = "sha256('whatever')"
    _tamper(
        log,
        f"UPDATE audit_event_id SET content_digest = {digest}"
        f" WHERE event_id = (SELECT event_id FROM audit_event WHERE writer_id = '{ONE}' AND writer_seq = 4)",
        f"UPDATE audit_event SET content_digest = {digest} WHERE writer_id = '{ONE}' AND writer_seq = 4",
    )
    assert (Verdict.CHAIN_BROKEN, ONE) in _verdicts(log)


def test_an_edit_with_its_row_hash_recomputed_breaks_the_link_to_the_next_row(log: Engine) -> None:
    with log.begin() as connection:
        row = connection.execute(
            text(
                "SELECT *, extract(epoch FROM recorded_at) * 1000000 AS us FROM audit_event"
                " WHERE writer_id = 'audit@one' AND writer_seq = 4"
            )
        ).one()
    forged = hash_row(bytes(row.prev_hash), ONE.encode(), 4, int(row.us) + 1, bytes(row.content_digest))
    _tamper(
        log,
        f"UPDATE audit_event SET row_hash = '\\x{forged.hex()}', recorded_at = recorded_at + interval '1 us'"
        " WHERE writer_id = 'audit@one' AND writer_seq = 4",
    )
    (finding,) = _verify(log).findings
    assert finding.verdict is Verdict.CHAIN_BROKEN
    assert finding.detail == "row 5 does not follow row 4"


@pytest.mark.parametrize("name", ["content_digest", "prev_hash", "row_hash"])
@pytest.mark.parametrize(
    "value", ["''", f"'\\x{'ab' * 31}'", f"'\\x{'ab' * 5000}'"], ids=["empty", "short", "long"]
)
def test_a_hash_of_another_length_is_one_that_does_not_fit(log: Engine, name: str, value: str) -> None:
    _tamper(log, f"UPDATE audit_event SET {name} = {value} WHERE writer_id = '{ONE}' AND writer_seq = 4")
    assert (Verdict.CHAIN_BROKEN, ONE) in _verdicts(log)


def test_two_swapped_ciphertexts_are_both_named(log: Engine) -> None:
    _tamper(
        log,
        "UPDATE audit_event a SET sealed_document = b.sealed_document FROM audit_event b"
        " WHERE a.writer_id = 'audit@one' AND b.writer_id = 'audit@one'"
        " AND a.writer_seq IN (3, 7) AND b.writer_seq = 10 - a.writer_seq",
    )
    findings = _verify(log).findings
    assert [(finding.verdict, finding.detail[:5]) for finding in findings] == [
        (Verdict.ROW_EDITED, "row 3"),
        (Verdict.ROW_EDITED, "row 7"),
    ]


def test_two_rows_in_each_others_place_are_named(log: Engine) -> None:
    _tamper(
        log,
        "UPDATE audit_event SET writer_seq = 10 - writer_seq"
        " WHERE writer_id = 'audit@one' AND writer_seq IN (3, 7)",
    )
    assert [(finding.verdict, finding.detail) for finding in _verify(log).findings] == [
        (Verdict.ROW_REORDERED, "what stands as row 3 was written as row 7"),
        (Verdict.ROW_REORDERED, "what stands as row 7 was written as row 3"),
    ]


@pytest.mark.parametrize("seq", [1, 4, 9])
def test_a_removed_row_is_named_with_its_number(seq: int, log: Engine) -> None:
    _tamper(log, f"DELETE FROM audit_event WHERE writer_id = '{ONE}' AND writer_seq = {seq}")
    findings = _verify(log).findings
    assert (Verdict.ROWS_REMOVED, ONE, f"rows {seq} to {seq}") in [
        (finding.verdict, finding.chain, finding.detail) for finding in findings
    ]
    assert Verdict.PRODUCER_GAP in [finding.verdict for finding in findings]


def test_a_removed_row_whose_successors_are_renumbered_is_named(log: Engine) -> None:
    _tamper(
        log,
        "DELETE FROM audit_event WHERE writer_id = 'audit@one' AND writer_seq = 4",
        "UPDATE audit_event SET writer_seq = writer_seq - 1 WHERE writer_id = 'audit@one' AND writer_seq > 4",
        "UPDATE audit_writer_head SET writer_seq = 9 WHERE writer_id = 'audit@one'",
    )
    assert (Verdict.CHAIN_BROKEN, ONE) in _verdicts(log)


def test_a_tail_cut_off_is_named(log: Engine) -> None:
    _tamper(log, "DELETE FROM audit_event WHERE writer_id = 'audit@one' AND writer_seq > 8")
    found = [finding for finding in _verify(log).findings if finding.verdict is Verdict.TAIL_CUT]
    assert [(finding.chain, finding.detail) for finding in found] == [
        (ONE, "ends at row 8; its head is at 10")
    ]


def test_a_tail_cut_off_with_its_head_rolled_back_is_named_by_ids_and_producers(log: Engine) -> None:
    _tamper(
        log,
        "DELETE FROM audit_event WHERE writer_id = 'audit@one' AND writer_seq > 8",
        "UPDATE audit_writer_head SET writer_seq = 8, row_hash = (SELECT row_hash FROM audit_event"
        " WHERE writer_id = 'audit@one' AND writer_seq = 8) WHERE writer_id = 'audit@one'",
    )
    verdicts = _verdicts(log)
    assert (Verdict.ROWS_REMOVED, "audit_event") in verdicts
    assert Verdict.PRODUCER_GAP in {verdict for verdict, _ in verdicts}


def test_a_writer_whose_rows_are_gone_is_named(log: Engine) -> None:
    _tamper(log, "DELETE FROM audit_event WHERE writer_id = 'audit@one'")
    assert _producers_left_out(_verdicts(log)) == {
        (Verdict.WRITER_REMOVED, ONE),
        (Verdict.ROWS_REMOVED, "audit_event"),
    }


def test_a_writer_gone_with_its_head_is_named_by_ids_and_producers(log: Engine) -> None:
    _tamper(
        log,
        "DELETE FROM audit_event WHERE writer_id = 'audit@one'",
        "DELETE FROM audit_writer_head WHERE writer_id = 'audit@one'",
    )
    verdicts = _verdicts(log)
    assert _producers_left_out(verdicts) == {(Verdict.ROWS_REMOVED, "audit_event")}
    assert len(verdicts) == 2


def test_a_truncated_partition_is_named(log: Engine) -> None:
    with log.begin() as connection:
        connection.execute(text("TRUNCATE audit_event"))
    assert _verdicts(log) == {
        (Verdict.WRITER_REMOVED, ONE),
        (Verdict.WRITER_REMOVED, TWO),
        (Verdict.ROWS_REMOVED, "audit_event"),
    }


COPIED_COLUMNS = """
    occurred_at, event_id, recorded_at, tenant, producer_id, producer_seq, event_type, severity, service,
    operation, retention_days, hipaa_related, hipaa_notify, key_id, sealed_document, outcome, error_id,
    error_code, task_name, task_id, attempt, pipeline_id, stage, user_index, subject_index, content_digest,
    writer_id, writer_seq, prev_hash, row_hash"""


def _copy_row(engine: Engine, writer: str, seq: int, **changes: str) -> None:
    """Insert a copy of a row under an id of its own, with some columns changed."""
    changes = {"event_id": "gen_random_uuid()", "writer_id": f"'{writer}'", "writer_seq": str(seq)} | changes
    columns = [name.strip() for name in COPIED_COLUMNS.split(",")]
    _tamper(
        engine,
        f"INSERT INTO audit_event ({', '.join(columns)})"
        f" SELECT {', '.join(changes.get(name, name) for name in columns)}"
        f" FROM audit_event WHERE writer_id = '{ONE}' AND writer_seq = 4",
    )


def test_an_inserted_row_is_named(log: Engine) -> None:
    _copy_row(log, ONE, 4)
    verdicts = _verdicts(log)
    assert {(Verdict.ROW_EDITED, ONE), (Verdict.ROW_INSERTED, ONE)} <= verdicts
    assert (Verdict.ID_MISSING, "audit_event_id") in verdicts
    assert Verdict.PRODUCER_NUMBER_REPEATED in {verdict for verdict, _ in verdicts}


def test_a_row_of_a_writer_that_never_was_is_named(log: Engine) -> None:
    _copy_row(log, "audit@nobody", 1)
    assert {(Verdict.HEAD_REMOVED, "audit@nobody"), (Verdict.CHAIN_BROKEN, "audit@nobody")} <= _verdicts(log)


@pytest.mark.parametrize("seq", [-5, 0, -(1 << 63), (1 << 63) - 1])
def test_a_row_of_an_impossible_number_is_named_and_stops_nothing(seq: int, log: Engine) -> None:
    _copy_row(log, ONE, seq)
    assert {verdict for verdict, chain in _verdicts(log) if chain == ONE} >= {Verdict.CHAIN_BROKEN}


def test_a_row_added_behind_the_head_in_good_order_is_named(log: Engine) -> None:
    with log.begin() as connection:
        row = connection.execute(
            text(
                "SELECT h.row_hash, e.recorded_at, e.content_digest FROM audit_writer_head h"
                " JOIN audit_event e USING (writer_id) WHERE writer_id = 'audit@one' AND e.writer_seq = 4"
            )
        ).one()
    head = Head(ONE, ROWS, bytes(row.row_hash))
    forged = head.next(bytes(row.content_digest), row.recorded_at)
    prev_hash, row_hash = (f"'\\x{end.row_hash.hex()}'" for end in (head, forged))
    _copy_row(log, ONE, ROWS + 1, prev_hash=prev_hash, row_hash=row_hash)
    assert (Verdict.HEAD_DIFFERS, ONE) in _verdicts(log)


def test_a_removed_head_is_named(log: Engine) -> None:
    _tamper(log, "DELETE FROM audit_writer_head WHERE writer_id = 'audit@one'")
    assert _verdicts(log) == {(Verdict.HEAD_REMOVED, ONE)}


@pytest.mark.parametrize("change", ["row_hash = '\\x00'", "writer_seq = writer_seq - 1"])
def test_a_changed_head_is_named(change: str, log: Engine) -> None:
    _tamper(log, f"UPDATE audit_writer_head SET {change} WHERE writer_id = 'audit@one'")
    assert _verdicts(log) == {(Verdict.HEAD_DIFFERS, ONE)}


def test_a_head_without_a_single_row_is_named(log: Engine) -> None:
    _tamper(log, "INSERT INTO audit_writer_head VALUES ('audit@gone', 5, '\\x00', now())")
    assert _verdicts(log) == {(Verdict.WRITER_REMOVED, "audit@gone")}


def test_a_removed_id_is_named(log: Engine) -> None:
    _tamper(
        log,
        "DELETE FROM audit_event_id WHERE event_id = (SELECT min(event_id::text)::uuid FROM audit_event_id)",
    )
    assert _verdicts(log) == {(Verdict.ID_MISSING, "audit_event_id")}


def test_an_id_planted_to_keep_an_event_out_is_named(log: Engine) -> None:
    _tamper(
        log,
        "INSERT INTO audit_event_id SELECT occurred_at, gen_random_uuid(), '' FROM audit_event_id LIMIT 1",
    )
    assert _verdicts(log) == {(Verdict.ROWS_REMOVED, "audit_event")}


def test_an_event_its_producer_counted_and_nobody_received_is_named(engine: Engine, seal: Seal) -> None:
    events = seal(6)
    AuditWriter(engine, ONE, SystemClock()).write([*events[:2], *events[4:]])
    (finding,) = _verify(engine).findings
    assert (finding.verdict, finding.chain) == (Verdict.PRODUCER_GAP, str(events[0].record.producer_id))
    assert finding.detail == "2 of 6 events of this producer are missing"


def test_events_that_their_producer_put_on_record_as_lost_are_counted_and_no_finding(
    engine: Engine, new_sealer: Callable[[], Sealer], new_event: Callable[..., AuditEvent]
) -> None:
    sealer = new_sealer()
    sealed = [sealer.seal(new_event()) for _ in range(6)]
    lost = reduce(Gap.joined, (Gap.of(new_event(), event) for event in sealed[2:4]))
    gap = sealer.seal(lost.as_event())
    AuditWriter(engine, ONE, SystemClock()).write([*sealed[:2], *sealed[4:], gap])
    report = _verify(engine)
    assert (report.findings, report.losses) == ((), 2)


def test_a_recorded_loss_does_not_explain_what_else_is_missing(
    engine: Engine, new_sealer: Callable[[], Sealer], new_event: Callable[..., AuditEvent]
) -> None:
    sealer = new_sealer()
    sealed = [sealer.seal(new_event()) for _ in range(6)]
    gap = sealer.seal(Gap.of(new_event(), sealed[2]).as_event())
    AuditWriter(engine, ONE, SystemClock()).write([*sealed[:2], *sealed[4:], gap])
    report = _verify(engine)
    assert [(finding.verdict, finding.detail) for finding in report.findings] == [
        (Verdict.PRODUCER_GAP, "1 of 7 events of this producer are missing")
    ]
    assert report.losses == 1


def test_an_event_that_may_still_be_on_its_way_is_no_finding_yet(engine: Engine, seal: Seal) -> None:
    events = seal(6)
    AuditWriter(engine, ONE, SystemClock()).write([*events[:2], *events[4:]])
    assert verify(engine, timedelta(minutes=5)).ok


def test_without_the_database_nothing_is_called_verified() -> None:
    engine = connect_database(load_settings(database_url="postgresql+psycopg://me:geheim@127.0.0.1:1/log"))
    with pytest.raises(ServiceUnavailableError):
        verify(engine)
    engine.dispose()
