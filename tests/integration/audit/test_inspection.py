"""The scheduled verification: what it keeps, and whom it tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from techdeck_tasks.audit.event import EventType
from techdeck_tasks.audit.sealing import SealedEvent
from techdeck_tasks.audit.writing.stream import STREAM, AuditStream, unpack
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, KeySet, Purpose, generate_keys
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import load_settings
from techdeck_tasks.tasks.upkeep import VERIFY


@pytest.fixture
def audit_worker(own_database: Engine, redis_url: str, tmp_path: Path) -> Iterator[Runtime]:
    """The runtime of an audit worker, with a sink, on a log of its own."""
    settings = load_settings(
        redis_url=redis_url,
        database_url=own_database.url.render_as_string(hide_password=False),
        keys_dir=tmp_path / "producer",
        reader_keys_dir=tmp_path / "reader",
        signing_keys_dir=tmp_path / "signer",
        audit_spool_dir=tmp_path / "spool",
        audit_sink_url=(tmp_path / "backup").as_uri(),
    )
    generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
    runtime = runtime_of(create_app(settings, role=Role.AUDIT))
    runtime.redis.delete(STREAM)
    yield runtime
    runtime.engine.dispose()


def _sent(runtime: Runtime) -> list[SealedEvent]:
    """Take what was sent to the stream."""
    stream = AuditStream(runtime.stream_redis, "test")
    stream.ensure_group()
    deliveries = stream.read(10, None)
    stream.acknowledge(deliveries)
    return [unpack(delivery.payload) for delivery in deliveries]


def _fill(runtime: Runtime) -> None:
    runtime.handler.handle(ValueError("the importer failed"))
    AuditWriter(runtime.engine, "audit@one", SystemClock()).write(_sent(runtime))
    custody = runtime.audit_custody()
    custody.start()
    custody.stop()


def test_a_log_never_verified_has_no_last_verification(audit_worker: Runtime) -> None:
    assert audit_worker.last_verification() is None


def test_the_scheduled_task_keeps_its_result_and_says_nothing_of_an_untouched_log(
    audit_worker: Runtime,
) -> None:
    _fill(audit_worker)
    assert audit_worker.app is not None
    result = audit_worker.app.tasks[VERIFY].apply().get()
    assert (result["ok"], result["rows"], result["checkpoints"], result["findings"]) == (True, 1, 1, [])
    last = audit_worker.last_verification()
    assert last is not None
    assert last.to_dict() == result
    assert audit_worker.redis.xlen(STREAM) == 0


def test_a_changed_log_becomes_a_critical_incident_on_record(
    audit_worker: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(audit_worker)
    with audit_worker.engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE audit_event SET severity = 'low'"))
    verification = audit_worker.inspect_audit()
    assert {finding["verdict"] for finding in verification.findings} == {"row_edited", "schema_changed"}
    assert audit_worker.last_verification() == verification
    assert [record.levelname for record in caplog.records if "row_edited" in record.message] == ["CRITICAL"]
    (incident,) = _sent(audit_worker)
    record = incident.record
    assert (record.event_type, record.severity) == (EventType.SECURITY_INCIDENT, "critical")


def test_an_audit_key_is_not_destroyed_while_events_under_it_may_be_on_their_way(
    audit_worker: Runtime,
) -> None:
    old = KeySet.load(audit_worker.settings.keys_dir / AUDIT_PUBLIC_KEYS).active
    audit_worker.key_folders.add(Purpose.AUDIT, activate=True)
    audit_worker.redis.delete(STREAM)
    audit_worker.check_audit_key_is_unused(old)
    audit_worker.redis.xadd(STREAM, {"e": b"waits"})
    with pytest.raises(ValidationError, match="on their way"):
        audit_worker.check_audit_key_is_unused(old)
    audit_worker.redis.delete(STREAM)
    audit_worker.spool.append(b"waits")
    with pytest.raises(ValidationError, match="on their way"):
        audit_worker.check_audit_key_is_unused(old)
