"""Databases and connections that are set otherwise, or end in the middle: no row suffers or is blamed."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.finding import Verdict
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.bulk import copied_rows, driver_of
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ServiceUnavailableError, WorkerLostError
from techdeck_tasks.keyring import CHECKPOINT_PRIVATE_KEYS, CHECKPOINT_PUBLIC_KEYS, KeySet
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database

ODD = "Köln \u0436 \u2028 \U0001d54f"
NewEvent = Callable[..., AuditEvent]


@pytest.fixture
def public_keys(keys_dir: Path) -> KeySet:
    return KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)


@pytest.fixture
def checkpointer(engine: Engine, keys_dir: Path) -> Checkpointer:
    signer = Signer(KeySet.load(keys_dir.parent / "signer" / CHECKPOINT_PRIVATE_KEYS))
    return Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 1000)


def _set(engine: Engine, *settings: str) -> None:
    """Give new connections to the database other settings."""
    with engine.begin() as connection:
        for setting in settings:
            connection.execute(text(f"ALTER DATABASE {engine.url.database} SET {setting}"))
    engine.dispose()


@pytest.mark.parametrize(
    "setting",
    [
        "client_encoding = 'LATIN1'",
        "client_encoding = 'WIN1251'",
        "client_encoding = 'SQL_ASCII'",
        "datestyle = 'German, DMY'",
        "timezone = 'Pacific/Kiritimati'",
        "intervalstyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "default_transaction_isolation = 'serializable'",
    ],
)
def test_other_settings_of_the_database_change_no_row_and_make_no_finding(
    setting: str,
    engine: Engine,
    sealer: Sealer,
    new_event: NewEvent,
    checkpointer: Checkpointer,
    public_keys: KeySet,
) -> None:
    def write() -> None:
        events = [sealer.seal(new_event(service=ODD, stage="", task_id=None)) for _ in range(3)]
        assert AuditWriter(engine, f"audit@{ODD}", SystemClock()).write(events).written == 3

    write()
    _set(engine, setting)
    write()
    checkpointer.make()
    assert verify(engine, timedelta(0), keys=public_keys).findings == ()
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {engine.url.database} RESET ALL"))
        assert connection.execute(text("SELECT DISTINCT service FROM audit_event")).scalars().all() == [ODD]
    engine.dispose()
    assert verify(engine, timedelta(0), keys=public_keys).findings == ()


def test_the_encoding_that_the_environment_names_is_not_the_logs(
    engine: Engine, sealer: Sealer, new_event: NewEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    AuditWriter(engine, "audit@one", SystemClock()).write([sealer.seal(new_event(service="Köln"))])
    monkeypatch.delenv("PGCLIENTENCODING")
    engine.dispose()
    assert verify(engine, timedelta(0)).findings == ()


@pytest.mark.parametrize("sound_rows", [10, 5_000, 100_000])
def test_rows_that_end_in_the_middle_tell_why_and_leave_the_connection_sound(
    engine: Engine, sound_rows: int
) -> None:
    rows = f"SELECT 1 / ({sound_rows} - i) FROM generate_series(0, 200000) i"
    with engine.connect() as connection:
        driver = driver_of(connection)
        with pytest.raises(psycopg.DataError, match="division by zero"):
            _read(driver, f"COPY ({rows}) TO STDOUT (FORMAT BINARY)")
        driver.rollback()
        assert driver.execute("SELECT 1").fetchone() == (1,)


def _read(driver: psycopg.Connection, statement: str) -> None:
    with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for _ in copied_rows(driver, copy):
            pass


def test_a_verification_whose_processes_cannot_connect_is_told_as_none(
    engine: Engine, sealer: Sealer, new_event: NewEvent, public_keys: KeySet
) -> None:
    for number in range(4):
        AuditWriter(engine, f"audit@{number}", SystemClock()).write([sealer.seal(new_event())])
    with _login_with_two_connections(engine) as auditor:
        with pytest.raises(WorkerLostError, match="nothing is verified"):
            verify(auditor, timedelta(0), keys=public_keys, processes=2)
        assert verify(auditor, keys=public_keys).ok


@contextmanager
def _login_with_two_connections(engine: Engine) -> Iterator[Engine]:
    name = f"user_{secrets.token_hex(4)}"
    with engine.begin() as connection:
        connection.execute(
            text(
                f"CREATE ROLE {name} LOGIN PASSWORD '{name}' CONNECTION LIMIT 2"
                " IN ROLE techdeck_audit_auditor"
            )
        )
    url = engine.url.set(username=name, password=name).render_as_string(hide_password=False)
    own = connect_database(load_settings(database_url=url))
    try:
        yield own
    finally:
        own.dispose()
        with engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def many_chains(engine: Engine, sealer: Sealer, new_event: NewEvent) -> Engine:
    """Forty rows of forty writers, each a stretch of its own."""
    for number in range(40):
        AuditWriter(engine, f"audit@{number}", SystemClock()).write([sealer.seal(new_event())])
    return engine


def test_ctrl_c_which_a_terminal_sends_to_all_does_not_reach_the_processes_of_a_verification(
    many_chains: Engine,
) -> None:
    reached: set[int] = set()

    def interrupt(_done: int, _total: int) -> None:
        for process in multiprocessing.active_children():
            if process.pid is not None and process.pid not in reached:
                reached.add(process.pid)
                os.kill(process.pid, signal.SIGINT)

    report = verify(many_chains, timedelta(0), processes=2, on_progress=interrupt)
    assert (report.rows, report.ok, len(reached)) == (40, True, 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_verification_that_is_interrupted_leaves_nothing_running(
    processes: int, many_chains: Engine
) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(many_chains, timedelta(0), processes=processes, on_progress=interrupt)
    assert multiprocessing.active_children() == []
    assert verify(many_chains, timedelta(0)).ok


def test_a_comparison_of_the_tables_ends_with_the_verification(many_chains: Engine) -> None:
    # Somebody's lock holds up the comparison alone: it would be waited for until that is gone.
    def interrupt(_done: int, _total: int) -> None:
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        with many_chains.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
            while not watching.execute(waiting).scalar_one():
                pass
        raise KeyboardInterrupt

    with many_chains.connect() as locking:
        locking.execute(text("LOCK TABLE audit_event_id IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(KeyboardInterrupt):
            verify(many_chains, timedelta(0), on_progress=interrupt)


def test_a_month_whose_columns_stand_in_another_order_verifies_and_is_written(
    engine: Engine, sealer: Sealer, new_event: NewEvent
) -> None:
    def write() -> None:
        events = [sealer.seal(new_event(service=ODD, attempt=number)) for number in range(3)]
        assert AuditWriter(engine, "audit@one", SystemClock()).write(events).written == 3

    write()
    with engine.begin() as connection:
        month, bound = connection.execute(
            text(
                "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class JOIN pg_inherits"
                " ON oid = inhrelid WHERE inhparent = 'audit_event'::regclass"
            )
        ).one()
        columns = connection.execute(
            text(
                "SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL'"
                " ELSE '' END FROM pg_attribute WHERE attrelid = 'audit_event'::regclass AND attnum > 0"
                " ORDER BY attname DESC"
            )
        ).all()
        names = ", ".join(name for name, _ in columns)
        for statement in (
            f"ALTER TABLE audit_event DETACH PARTITION {month}",
            f"ALTER TABLE {month} RENAME TO before",
            f"CREATE TABLE {month} ({', '.join(f'{name} {kind}' for name, kind in columns)})",
            f"INSERT INTO {month} ({names}) SELECT {names} FROM before",
            "DROP TABLE before",
            f"ALTER TABLE audit_event ATTACH PARTITION {month} {bound}",
        ):
            connection.execute(text(statement))
    write()
    report = verify(engine, timedelta(0))
    assert (report.rows, report.findings) == (6, ())


def test_a_column_dropped_and_added_again_costs_its_values_and_each_is_named(
    engine: Engine, sealer: Sealer, new_event: NewEvent
) -> None:
    writer = AuditWriter(engine, "audit@one", SystemClock())
    writer.write([sealer.seal(new_event(stage="load")), sealer.seal(new_event())])
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event DROP COLUMN stage"))
        connection.execute(text("ALTER TABLE audit_event ADD COLUMN stage text"))
    writer.write([sealer.seal(new_event(stage="load"))])
    findings = verify(engine, timedelta(0)).findings
    assert [(finding.verdict, finding.detail[:5]) for finding in findings] == [(Verdict.ROW_EDITED, "row 1")]


@pytest.mark.parametrize("failing", ["statement_timeout", "raise", "disk_full"])
def test_a_copy_that_fails_in_the_middle_loses_nothing_and_doubles_nothing(
    failing: str, engine: Engine, sealer: Sealer, new_event: NewEvent
) -> None:
    raised = {
        "statement_timeout": "RAISE EXCEPTION 'slow' USING ERRCODE = 'query_canceled'",
        "raise": "RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'",
        "disk_full": "RAISE EXCEPTION 'full' USING ERRCODE = 'disk_full'",
    }[failing]
    writer = AuditWriter(engine, "audit@one", SystemClock())
    writer.write([sealer.seal(new_event())])
    events = [sealer.seal(new_event(attempt=number)) for number in range(1500)]
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" IF NEW.attempt = 1200 THEN {raised}; END IF; RETURN NEW; END $$"
            )
        )
        connection.execute(
            text("CREATE TRIGGER fail BEFORE INSERT ON audit_event FOR EACH ROW EXECUTE FUNCTION fail()")
        )
    meanwhile: list[int] = []
    with pytest.raises((DBAPIError, ServiceUnavailableError)):
        writer.write(events, lambda: meanwhile.append(1))
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER fail ON audit_event"))
        assert connection.execute(text("SELECT count(*) FROM audit_event_id")).scalar_one() == 1
    assert writer.write(events).written == 1500
    report = verify(engine, timedelta(0))
    assert (report.rows, report.findings) == (1501, ())
