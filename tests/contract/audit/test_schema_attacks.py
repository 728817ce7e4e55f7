"""Attacks on what surrounds the rows, by a superuser: tables, triggers, functions, keys, reports.

Each database is of one test alone, with all triggers on but where the attack itself switches one off.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from techdeck_tasks.audit.compliance.store import ReportKind, ReportStore
from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.incidents.store import IncidentStore
from techdeck_tasks.audit.proof import verify_run
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.finding import Finding, Verdict, VerifyReport
from techdeck_tasks.audit.proof.schema_check import newest_revision
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.proof.verify_run import Verification
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import CHECKPOINT_PRIVATE_KEYS, CHECKPOINT_PUBLIC_KEYS, KeySet

if TYPE_CHECKING:
    from tests.contract.audit.conftest import NewEvent, Trail

ONE, TWO = "audit@one", "audit@two"
Check = Callable[[], set[tuple[Verdict, str]]]
SCHEMA = Verdict.SCHEMA_CHANGED


@pytest.fixture
def checkpointer(engine: Engine, keys_dir: Path) -> Checkpointer:
    signer = Signer(KeySet.load(keys_dir.parent / "signer" / CHECKPOINT_PRIVATE_KEYS))
    return Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 1000)


@pytest.fixture
def log(engine: Engine, seal: Callable[[int], list[SealedEvent]], checkpointer: Checkpointer) -> Engine:
    """Five rows of one writer, three of another, under a checkpoint; then two more."""
    events = seal(10)
    for start, stop, name in ((0, 5, ONE), (5, 8, TWO), (8, 10, ONE)):
        AuditWriter(engine, name, SystemClock()).write(events[start:stop])
        if stop == 8:
            checkpointer.make()
    return engine


@pytest.fixture
def check(engine: Engine, keys_dir: Path) -> Check:
    keys = KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)

    def check() -> set[tuple[Verdict, str]]:
        report = verify(engine, timedelta(hours=1), keys=keys)
        return {(finding.verdict, finding.chain) for finding in report.findings}

    return check


def _run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _without_triggers(table: str, *statements: str) -> tuple[str, ...]:
    """Switch a table's triggers off and on again, as who leaves no trace in the schema does."""
    names = {"audit_event": "refuse_change", "audit_event_id": "refuse_change"}.get(table)
    off = [f"ALTER TABLE {table} DISABLE TRIGGER USER"]
    on = [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for name in _names_of(table, names)]
    return (*off, *statements, *on)


def _names_of(table: str, change: str | None) -> tuple[str, ...]:
    if table == "audit_writer_head":
        return ("refuse_backward", "refuse_delete", "refuse_truncate")
    if table in {"audit_data_key", "audit_hold"}:
        return ("refuse_change", "refuse_delete", "refuse_truncate")
    return (change or "refuse_change", "refuse_truncate")


def test_an_untouched_log_has_no_finding(log: Engine, check: Check) -> None:
    AuditWriter(log, ONE, SystemClock()).prepare_partitions()
    assert check() == set()


def test_a_schema_of_another_version_is_named_with_the_remedy(log: Engine, keys_dir: Path) -> None:
    _run(log, "UPDATE alembic_version SET version_num = '0012'")
    report = verify(log, keys=KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS))
    (finding,) = report.findings
    assert finding.verdict is SCHEMA
    assert "techdeck db upgrade" in finding.detail
    _run(log, "DROP TABLE alembic_version")
    assert not verify(log, keys=KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)).ok


def test_the_newest_revision_is_that_of_the_migrations(engine: Engine) -> None:
    with engine.connect() as connection:
        at = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert at == newest_revision()


# A copy of a row that no reader could tell from a true one, with its id on record.
_FORGE = """
    INSERT INTO audit_event SELECT (jsonb_populate_record(CAST(NULL AS audit_event), to_jsonb(e)
        || jsonb_build_object('event_id', overlay(CAST(e.event_id AS text) PLACING 'abcdef' FROM 31),
            'producer_id', gen_random_uuid(), 'producer_seq', 1, {values}))).*
    FROM audit_event e WHERE writer_id = 'audit@two' AND writer_seq = 1
"""
_ID_OF_FORGED = """
    INSERT INTO audit_event_id SELECT occurred_at, event_id, content_digest FROM audit_event e
    WHERE CAST(event_id AS text) LIKE '%abcdef' ON CONFLICT DO NOTHING
"""


@pytest.mark.parametrize("column", ["writer_id", "writer_seq"])
def test_a_row_in_no_chain_is_named(column: str, log: Engine, check: Check) -> None:
    _run(
        log,
        f"ALTER TABLE audit_event ALTER {column} DROP NOT NULL",
        _FORGE.format(values=f"'{column}', NULL"),
        _ID_OF_FORGED,
    )
    assert check() == {(SCHEMA, "audit_event")}


def test_a_row_that_the_writers_index_does_not_lead_to_is_named(log: Engine, check: Check) -> None:
    indexes = (
        "indexrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'ix_audit_event_writer'::regclass)"
    )
    _run(log, f"UPDATE pg_index SET indisready = false WHERE {indexes}")
    _run(
        log,
        _FORGE.format(values="'writer_id', 'audit@zzz'"),
        "SET LOCAL enable_indexscan = off",
        _ID_OF_FORGED,
    )
    assert (SCHEMA, _this_month("audit_event")) in check()
    _run(log, f"UPDATE pg_index SET indisready = true WHERE {indexes}")
    assert check() == {(Verdict.ROW_INSERTED, "audit_event")}


def _this_month(parent: str) -> str:
    return f"{parent}_p{datetime.now(UTC):%Y%m}"


@pytest.mark.parametrize(
    ("where", "statements"),
    [
        ("audit_event", ["ALTER TABLE audit_event ENABLE ROW LEVEL SECURITY"]),
        ("audit_event", ["ALTER TABLE audit_event DISABLE TRIGGER refuse_change"]),
        ("audit_event", ["ALTER TABLE audit_event ENABLE TRIGGER refuse_change"]),
        ("audit_event_id", ["DROP TRIGGER refuse_truncate ON audit_event_id"]),
        ("audit_checkpoint", ["ALTER TABLE audit_checkpoint DISABLE TRIGGER USER"]),
        ("compliance_report", ["DROP TRIGGER refuse_change ON compliance_report"]),
        ("audit_event", ["ALTER TABLE audit_event ADD COLUMN remark text"]),
        ("audit_event", ["ALTER TABLE audit_event DROP COLUMN stage"]),
        ("audit_event", ["ALTER TABLE audit_event ALTER recorded_at TYPE text"]),
        ("audit_event", ['ALTER TABLE audit_event ALTER tenant TYPE text COLLATE "C"']),
        ("audit_writer_head", ["ALTER TABLE audit_writer_head ALTER row_hash DROP NOT NULL"]),
        ("audit_checkpoint", ["CREATE RULE quiet AS ON DELETE TO audit_checkpoint DO INSTEAD NOTHING"]),
        ("audit_verify_run", [
            "ALTER TABLE audit_verify_run RENAME TO kept",
            "CREATE VIEW audit_verify_run AS SELECT * FROM kept",
        ]),
        ("audit_writer_head", ["ALTER TABLE audit_writer_head SET UNLOGGED"]),
        ("audit_event", ["ALTER TABLE audit_event ADD CHECK (service <> 'billing') NOT VALID"]),
        ("audit_data_key", ["CREATE UNIQUE INDEX one_a_tenant ON audit_data_key (tenant) WHERE false"]),
        ("audit_writer_head", ["ALTER TABLE audit_writer_head DROP CONSTRAINT pk_audit_writer_head"]),
        ("audit_event_rest", ["CREATE TABLE audit_event_rest PARTITION OF audit_event DEFAULT"]),
        ("audit_event", ["CREATE SCHEMA other", "CREATE TABLE other.audit_event AS TABLE audit_event"]),
        ("audit_event_id", [
            "CREATE FUNCTION eat() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER eat BEFORE INSERT ON audit_event_id FOR EACH ROW EXECUTE FUNCTION eat()",
        ]),
        ("techdeck_audit_refuse", [
            """CREATE OR REPLACE FUNCTION techdeck_audit_refuse() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN OLD; END'""",
        ]),
        ("techdeck_audit_lock_holds", ["DROP FUNCTION techdeck_audit_lock_holds()"]),
    ],
)  # fmt: skip
def test_what_is_not_as_the_migrations_made_it_is_named(
    where: str, statements: list[str], log: Engine, check: Check
) -> None:
    _run(log, *statements)
    assert (SCHEMA, where) in check()


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01"])
def test_a_time_beyond_reckoning_is_named_and_ends_no_verification(
    moment: str, log: Engine, check: Check
) -> None:
    stone = "INSERT INTO audit_tombstone (month, made_at, rows, key_id, statement, signature)"
    _run(
        log,
        *_without_triggers("audit_checkpoint", f"UPDATE audit_checkpoint SET made_at = '{moment}'"),
        f"{stone} VALUES (CAST('{moment}' AS date), now(), 1, 'x', '', '')",
        f"{stone} VALUES ('2020-01-01', '{moment}', 1, 'x', '', '')",
        *_without_triggers("audit_writer_head", f"UPDATE audit_writer_head SET updated_at = '{moment}'"),
    )
    assert check() == {
        (Verdict.CHECKPOINT_FORGED, "audit_checkpoint"),
        (Verdict.UNKNOWN_KEY, "audit_tombstone"),
    }


def test_a_data_key_that_was_removed_is_named(log: Engine, check: Check) -> None:
    _run(log, *_without_triggers("audit_data_key", "DELETE FROM audit_data_key"))
    assert check() == {(Verdict.DATA_KEY_REMOVED, "audit_data_key")}


@pytest.mark.parametrize("moment", ["now() - interval '1 day'", "now() + interval '1 day'", "'infinity'"])
def test_a_data_key_destroyed_without_an_erasure_on_record_is_named(
    moment: str, log: Engine, check: Check
) -> None:
    # The keeper's role may do that much.
    _run(log, f"UPDATE audit_data_key SET sealed_key = '', erased_at = {moment}")
    assert check() == {(Verdict.DATA_KEY_REMOVED, "audit_data_key")}


@pytest.mark.parametrize("moment", ["now() + interval '1 day'", "'infinity'"])
def test_a_verification_that_somebody_dates_ahead_does_not_hide_the_last_one(
    moment: str, log: Engine
) -> None:
    now = datetime.now(UTC)
    bad = VerifyReport(10, 2, (Finding(Verdict.ROW_EDITED, ONE, "row 1"),))
    verify_run.keep(log, Verification.of(bad, now, now))
    # The writer's role may do that much.
    _run(
        log,
        "INSERT INTO audit_verify_run (run_id, started_at, finished_at, rows, writers, checkpoints, ok,"
        f" finding_count, findings) VALUES (gen_random_uuid(), {moment}, {moment}, 9, 1, 1, true, 0, '[]')",
    )
    last = verify_run.last(log)
    assert last is not None
    assert not last.ok


# -- reports ----------------------------------------------------------------------------------------------


class Reports:
    """A report that is made, signed and on record."""

    def __init__(self, engine: Engine, trail: Trail, sealer: Sealer, checkpointer: Checkpointer) -> None:
        self._store = ReportStore(engine, trail, _Earlier(), 2190)
        end = _Earlier().now().replace(hour=0, minute=0, second=0, microsecond=0)
        made = self._store.make(ReportKind.ON_DEMAND, end - timedelta(days=1), end, "officer")
        assert made is not None
        self.report_id = made.report_id
        self._store.sign_off(made.report_id, reviewer="anna", note="looks good, call 555-01-2345")
        events = [sealer.seal(event) for event in trail.events]
        AuditWriter(engine, TWO, _Earlier()).write(events)
        checkpointer.make()


class _Earlier(SystemClock):
    def now(self) -> datetime:
        return super().now() - timedelta(hours=3)


@pytest.fixture
def report_id(log: Engine, trail: Trail, sealer: Sealer, checkpointer: Checkpointer) -> str:
    return Reports(log, trail, sealer, checkpointer).report_id


def test_a_report_and_its_signature_on_record_are_no_finding(report_id: str, check: Check) -> None:
    assert report_id
    assert check() == set()


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE compliance_report SET document = replace(document, '{', '{ '),
        sha256 = sha256(convert_to(replace(document, '{', '{ '), 'UTF8'))""",
        "UPDATE compliance_report SET reviewed_by = 'berta'",
        "UPDATE compliance_report SET review_note = 'all is well'",
        "UPDATE compliance_report SET reviewed_at = reviewed_at - interval '1 day'",
        "UPDATE compliance_report SET reviewed_at = 'infinity', generated_at = '-infinity'",
        "UPDATE compliance_report SET reviewed_by = NULL, reviewed_at = NULL, review_note = NULL",
        "UPDATE compliance_report SET report_id = gen_random_uuid()",
        "DELETE FROM compliance_report",
    ],
)
def test_a_report_that_was_changed_by_whoever_may_everything_is_named(
    statement: str, report_id: str, log: Engine, check: Check
) -> None:
    assert report_id
    _run(log, *_without_triggers("compliance_report", statement))
    assert check() == {(Verdict.REPORT_CHANGED, "compliance_report")}


def test_reports_are_not_truncated(report_id: str, log: Engine, check: Check) -> None:
    assert report_id
    with pytest.raises(DBAPIError, match="append-only"):
        _run(log, "TRUNCATE compliance_report")


# -- incidents --------------------------------------------------------------------------------------------


@pytest.fixture
def incident_id(
    log: Engine, trail: Trail, sealer: Sealer, new_event: NewEvent, checkpointer: Checkpointer
) -> str:
    """An incident that somebody was told of and that was resolved, all of it on record."""
    writer = AuditWriter(log, TWO, _Earlier())
    writer.write([sealer.seal(new_event(event_type=EventType.SECURITY_INCIDENT, error_id="error-1"))])
    store = IncidentStore(log, trail, _Earlier(), 2190)
    store.catch_up()
    (incident,) = store.search()
    store.mark_notified(incident.incident_id, "email")
    store.assign(incident.incident_id, assignee="anna", by="berta", note="please look")
    store.resolve(incident.incident_id, secured=False, by="anna", note="told the patient, 555-01-2345")
    writer.write([sealer.seal(event) for event in trail.events])
    checkpointer.make()
    return incident.incident_id


def test_an_incident_that_stands_as_the_log_tells_is_no_finding(incident_id: str, check: Check) -> None:
    assert incident_id
    assert check() == set()


@pytest.mark.parametrize(
    "change",
    [
        "secured = true",
        "note = 'nothing happened'",
        "state = 'dismissed'",
        "state = 'investigating'",
        "changed_by = 'somebody'",
        "changed_at = changed_at - interval '1 day'",
        "changed_at = 'infinity'",
        "state = 'open', changed_at = NULL, changed_by = NULL",
        "notification_channel = 'pager'",
        "notification_sent_at = '-infinity'",
        "notification_deadline = notification_deadline + interval '1 year'",
        "discovered_at = 'infinity'",
        "severity = 'low'",
        "error_id = NULL",
    ],
)
def test_an_incident_that_was_changed_past_the_log_is_named(
    change: str, incident_id: str, log: Engine, check: Check
) -> None:
    assert incident_id
    _run(log, f"UPDATE security_incident SET {change}")
    assert check() == {(Verdict.INCIDENT_CHANGED, "security_incident")}
