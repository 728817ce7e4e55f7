"""Nobody changes the log by a slip, not even its owner. No test here changes anything: they share a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock


@pytest.fixture(scope="module")
def engine(
    databases: Callable[[], AbstractContextManager[Engine]],
    new_sealer: Callable[[], Sealer],
    new_event: Callable[..., AuditEvent],
) -> Iterator[Engine]:
    sealer = new_sealer()
    with databases() as engine:
        AuditWriter(engine, "audit@one", SystemClock()).write([sealer.seal(new_event()) for _ in range(2)])
        yield engine


@pytest.fixture(autouse=True)
def unchanged(engine: Engine) -> Iterator[None]:
    yield
    report = verify(engine, timedelta(0))
    assert (report.rows, report.findings) == (2, ())


def _change(engine: Engine, role: str, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL session_replication_role = {role}"))
        connection.execute(text(statement))


@pytest.mark.parametrize("role", ["origin", "replica", "local"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {table} SET content_digest = content_digest",
        "DELETE FROM {table}",
        "TRUNCATE {table}",
        "TRUNCATE {table} CASCADE",
    ],
)
@pytest.mark.parametrize("parent", ["audit_event", "audit_event_id"])
def test_rows_and_ids_cannot_be_changed_by_parent_or_partition(
    parent: str, change: str, role: str, engine: Engine
) -> None:
    with engine.begin() as connection:
        statement = text(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:p AS regclass)"
        )
        partition = connection.execute(statement, {"p": parent}).scalar_one()
    for table in (parent, partition):
        with pytest.raises(DBAPIError, match="append-only"):
            _change(engine, role, change.format(table=table))


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM audit_writer_head",
        "TRUNCATE audit_writer_head",
        "UPDATE audit_writer_head SET writer_seq = writer_seq - 1",
        "UPDATE audit_writer_head SET row_hash = 'x'",
        "UPDATE audit_writer_head SET writer_id = 'x', writer_seq = writer_seq + 1",
    ],
)
def test_a_head_moves_forward_only(change: str, role: str, engine: Engine) -> None:
    with pytest.raises(DBAPIError, match=r"append-only|forward only"):
        _change(engine, role, change)
