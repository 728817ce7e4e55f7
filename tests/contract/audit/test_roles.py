"""What each role of the database may do, by connections that hold that role alone."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from techdeck_tasks.audit.event import new_event_id
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_export import SinkExporter
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.verify import SETTLING, verify
from techdeck_tasks.audit.retention.archive import Archive
from techdeck_tasks.audit.retention.erase import Eraser, ErasureScope
from techdeck_tasks.audit.retention.holds import HeldError, HoldScope, HoldStore
from techdeck_tasks.audit.retention.prune import Pruner
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import CHECKPOINT_PRIVATE_KEYS, CHECKPOINT_PUBLIC_KEYS, KeySet
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database
from techdeck_tasks.testing.clock import FakeClock

if TYPE_CHECKING:
    from tests.contract.audit.conftest import NewEvent, Trail

As = Callable[[str], Engine]
_MONTH = "SELECT techdeck_audit_ensure_partition(CAST(:month AS date))"
REFUSED = pytest.raises(ProgrammingError, match=r"permission denied|must be owner")


@contextmanager
def _login(engine: Engine, grants: str) -> Iterator[Engine]:
    """Connect as a new user of the server."""
    name, password = f"user_{secrets.token_hex(4)}", secrets.token_hex(8)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {grants}"))
    url = make_url(engine.url).set(username=name, password=password)
    own = connect_database(load_settings(database_url=url.render_as_string(hide_password=False)))
    try:
        yield own
    finally:
        own.dispose()
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def writer_login(engine: Engine) -> Iterator[Engine]:
    with _login(engine, "IN ROLE techdeck_audit_writer") as own:
        yield own


@pytest.fixture
def signer(keys_dir: Path) -> Signer:
    return Signer(KeySet.load(keys_dir.parent / "signer" / CHECKPOINT_PRIVATE_KEYS))


def test_a_writer_makes_partitions_adds_rows_and_signs_checkpoints(
    engine: Engine,
    writer_login: Engine,
    seal: Callable[[int], list[SealedEvent]],
    signer: Signer,
    keys_dir: Path,
) -> None:
    writer = AuditWriter(writer_login, "audit@one", SystemClock())
    writer.prepare_partitions()
    assert writer.write(seal(3)).written == 3
    Checkpointer(writer_login, signer, SystemClock(), timedelta(hours=1), 10).make()
    with _login(engine, "IN ROLE techdeck_audit_auditor") as auditor:
        report = verify(auditor, SETTLING, keys=KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS))
    assert (report.rows, report.checkpoints, report.findings) == (3, 1, ())


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("audit_event", "content_digest"),
        ("audit_event_id", "content_digest"),
        ("audit_checkpoint", "signature"),
        ("audit_tombstone", "signature"),
        ("audit_verify_run", "findings"),
    ],
)
@pytest.mark.parametrize("role", ["writer", "reader", "auditor"])
def test_no_role_changes_or_removes_rows(
    role: str, table: str, column: str, engine: Engine, seal: Callable[[int], list[SealedEvent]]
) -> None:
    AuditWriter(engine, "audit@one", SystemClock()).write(seal(1))
    with _login(engine, f"IN ROLE techdeck_audit_{role}") as login:
        for statement in (
            f"UPDATE {table} SET {column} = {column}",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
        ):
            with REFUSED, login.begin() as connection:
                connection.execute(text(statement))


def test_no_role_detaches_or_touches_a_partition(
    engine: Engine, writer_login: Engine, seal: Callable[[int], list[SealedEvent]]
) -> None:
    AuditWriter(engine, "audit@one", SystemClock()).write(seal(1))
    with engine.begin() as connection:
        partition = connection.execute(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_event'::regclass")
        ).scalar_one()
    for statement in (
        f"ALTER TABLE audit_event DETACH PARTITION {partition}",
        f"DROP TABLE {partition}",
        f"TRUNCATE {partition}",
        f"DELETE FROM {partition}",
        "SELECT pg_catalog.set_config('session_replication_role', 'replica', true)",
    ):
        with REFUSED, writer_login.begin() as connection:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("auditor", "SELECT * FROM audit_data_key"),
        ("reader", "SELECT * FROM audit_checkpoint"),
        ("reader", "INSERT INTO audit_event_id VALUES (now(), gen_random_uuid(), '')"),
        ("auditor", "SELECT techdeck_audit_ensure_partition(CAST(now() AS date))"),
    ],
)
def test_a_role_may_what_its_duty_needs_and_no_more(role: str, statement: str, engine: Engine) -> None:
    with _login(engine, f"IN ROLE techdeck_audit_{role}") as login, REFUSED, login.begin() as connection:
        connection.execute(text(statement))


def test_an_auditor_compares_data_keys_with_the_sink_without_seeing_them(
    engine: Engine,
    seal: Callable[[int], list[SealedEvent]],
    signer: Signer,
    keys_dir: Path,
    tmp_path: Path,
) -> None:
    AuditWriter(engine, "audit@one", SystemClock()).write(seal(1))
    Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 10).make()
    store = SegmentStore((tmp_path / "sink").as_uri())
    SinkExporter(engine, store, SystemClock()).catch_up()
    keys = KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)
    with _login(engine, "IN ROLE techdeck_audit_auditor") as auditor:
        assert verify(auditor, SETTLING, keys=keys, sink=store).findings == ()
        with REFUSED, auditor.begin() as connection:
            connection.execute(text("SELECT sealed_key FROM audit_data_key"))


@pytest.mark.parametrize("days", [-366, 1])
def test_a_writer_makes_any_month_that_an_event_can_come_of(days: int, writer_login: Engine) -> None:
    moment = datetime.now(UTC) + timedelta(days=days)
    with writer_login.begin() as connection:
        connection.execute(text(_MONTH), {"month": moment.date()})


@pytest.mark.parametrize("month", ["0001-01-01", "2001-02-01", "2190-01-01", "infinity"])
def test_a_writer_makes_no_month_beyond(month: str, writer_login: Engine) -> None:
    refused = pytest.raises(DBAPIError, match=r"no event of .* can come now|infinite|out of range")
    with refused, writer_login.begin() as connection:
        connection.execute(text(_MONTH), {"month": month})


def test_a_migration_by_a_user_who_may_not_make_roles_says_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"plain_{secrets.token_hex(4)}"
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin,
        _login(engine, "") as owner,
    ):
        admin.execute(text(f"CREATE DATABASE {name} OWNER {owner.url.username}"))
        url = owner.url.set(database=name).render_as_string(hide_password=False)
        own = connect_database(load_settings(database_url=url))
        migration.upgrade(own)
        assert not migration.pending(own)
        own.dispose()
        admin.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    assert "may not create roles" in caplog.text


def test_a_keeper_prunes_and_erases_and_does_nothing_else(
    engine: Engine, signer: Signer, trail: Trail, tmp_path: Path, sealer: Sealer, new_event: NewEvent
) -> None:
    moment = datetime(2018, 3, 1, tzinfo=UTC)
    old = new_event(event_id=new_event_id(time_ns=int(moment.timestamp()) * 10**9), retention_days=1)
    AuditWriter(engine, "audit@one", FakeClock(moment)).write([sealer.seal(old)])
    Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 10).make()
    with _login(engine, "IN ROLE techdeck_audit_keeper") as keeper:
        archive = Archive((tmp_path / "archive").as_uri())
        scope = ErasureScope(tenant="clinic", since=moment, until=moment + timedelta(days=1))
        assert Eraser(keeper, trail, SystemClock(), 1).erase(scope, reason="request", by="officer").rows == 1
        pruner = Pruner(keeper, archive, lambda: signer, trail, SystemClock(), retention_days=1)
        assert pruner.prune(moment.date(), "officer").rows == 1
        for statement in (
            "DELETE FROM audit_event",
            "INSERT INTO audit_checkpoint DEFAULT VALUES",
            "UPDATE audit_tombstone SET rows = 0",
            "SELECT techdeck_audit_ensure_partition('2018-03-01')",
            "INSERT INTO audit_hold DEFAULT VALUES",
            "UPDATE audit_hold SET released_at = now()",
        ):
            with REFUSED, keeper.begin() as connection:
                connection.execute(text(statement))


def test_a_counsel_sets_and_releases_holds_and_does_nothing_else(
    engine: Engine, trail: Trail, sealer: Sealer, new_event: NewEvent
) -> None:
    AuditWriter(engine, "audit@one", SystemClock()).write([sealer.seal(new_event(pipeline_id="run-1"))])
    with _login(engine, "IN ROLE techdeck_audit_counsel") as counsel:
        holds = HoldStore(counsel, trail, SystemClock(), 1)
        hold = holds.add(HoldScope(pipeline_id="run-1"), reason="case", by="counsel")
        holds.note_months("counsel")
        holds.release(str(hold.hold_id), reason="over", by="counsel")
        for statement in (
            "SELECT techdeck_audit_close_month('2018-03-01')",
            "SELECT techdeck_audit_drop_month('2018-03-01')",
            "SELECT techdeck_audit_lock_holds()",
            "INSERT INTO audit_tombstone DEFAULT VALUES",
            "UPDATE audit_data_key SET sealed_key = ''",
            "DELETE FROM audit_hold",
            "INSERT INTO audit_event DEFAULT VALUES",
        ):
            with REFUSED, counsel.begin() as connection:
                connection.execute(text(statement))


def test_a_keeper_does_not_get_past_a_hold(
    engine: Engine, signer: Signer, trail: Trail, tmp_path: Path, sealer: Sealer, new_event: NewEvent
) -> None:
    moment = datetime(2018, 3, 1, tzinfo=UTC)
    old = new_event(event_id=new_event_id(time_ns=int(moment.timestamp()) * 10**9), retention_days=1)
    AuditWriter(engine, "audit@one", FakeClock(moment)).write([sealer.seal(old)])
    Checkpointer(engine, signer, SystemClock(), timedelta(hours=1), 10).make()
    hold = HoldStore(engine, trail, SystemClock(), 1).add(HoldScope(), reason="case", by="counsel")
    with _login(engine, "IN ROLE techdeck_audit_keeper") as keeper:
        archive = Archive((tmp_path / "archive").as_uri())
        with REFUSED:
            HoldStore(keeper, trail, SystemClock(), 1).release(str(hold.hold_id), reason="over", by="officer")
        scope = ErasureScope(tenant="clinic", since=moment, until=moment + timedelta(days=1))
        with pytest.raises(HeldError):
            Eraser(keeper, trail, SystemClock(), 1).erase(scope, reason="request", by="officer")
        with pytest.raises(HeldError):
            Pruner(keeper, archive, lambda: signer, trail, SystemClock(), retention_days=1).prune(
                moment.date(), "officer"
            )


def test_a_writer_may_neither_drop_a_month_nor_destroy_a_key(writer_login: Engine) -> None:
    for statement in (
        "SELECT techdeck_audit_drop_month('2018-03-01')",
        "UPDATE audit_data_key SET sealed_key = ''",
        "INSERT INTO audit_hold DEFAULT VALUES",
    ):
        with REFUSED, writer_login.begin() as connection:
            connection.execute(text(statement))
