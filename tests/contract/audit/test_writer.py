from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from techdeck_tasks.audit.event import AuditEvent, new_event_id
from techdeck_tasks.audit.models import AuditEventRow
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.reading.reader import record_of
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database

Seal = Callable[[int], list[SealedEvent]]
NewEvent = Callable[..., AuditEvent]
NO_SETTLING = timedelta(0)


class FixedClock(SystemClock):
    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now


def _changed(event: SealedEvent, **changes: Any) -> SealedEvent:
    record = dataclasses.replace(event.record, **changes)
    return SealedEvent.of(record, event.data_key)


def _scalar(engine: Engine, statement: str) -> Any:
    with engine.begin() as connection:
        return connection.execute(text(statement)).scalar_one()


def _partitions(engine: Engine, parent: str = "audit_event") -> list[str]:
    with engine.begin() as connection:
        names = connection.execute(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:p AS regclass)"),
            {"p": parent},
        )
        return sorted(name for name in names.scalars())


def test_rows_are_what_was_sealed_in_their_order(writer: AuditWriter, engine: Engine, seal: Seal) -> None:
    events = seal(20)
    result = writer.write(events)
    assert (result.written, result.duplicates, result.refused) == (20, 0, [])
    with engine.begin() as connection:
        rows = connection.execute(AuditEventRow.__table__.select().order_by(AuditEventRow.writer_seq)).all()
    assert [record_of(row) for row in rows] == [event.record for event in events]
    assert [row.writer_seq for row in rows] == list(range(1, 21))
    assert [row.occurred_at for row in rows] == [event.record.occurred_at for event in events]
    assert [bytes(row.content_digest) for row in rows] == [event.content_digest for event in events]


def test_the_same_batch_twice_is_written_once(writer: AuditWriter, engine: Engine, seal: Seal) -> None:
    events = seal(10)
    writer.write(events)
    result = writer.write(events)
    assert (result.written, result.duplicates, result.refused) == (0, 10, [])
    assert verify(engine, NO_SETTLING).rows == 10
    assert verify(engine, NO_SETTLING).ok


def test_an_event_twice_in_one_batch_is_written_once(writer: AuditWriter, seal: Seal) -> None:
    events = seal(3)
    result = writer.write([*events, *events])
    assert (result.written, result.duplicates, result.refused) == (3, 3, [])


def test_nothing_to_write_is_no_error(writer: AuditWriter, engine: Engine) -> None:
    assert writer.write([]).written == 0
    assert _scalar(engine, "SELECT count(*) FROM audit_writer_head") == 0


def test_two_writers_with_overlapping_batches_write_each_event_once(engine: Engine, seal: Seal) -> None:
    events = seal(600)
    writers = [AuditWriter(engine, name, SystemClock()) for name in ("audit@one", "audit@two", "audit@three")]
    together = threading.Barrier(len(writers))

    def write(number: int) -> int:
        # Each in another order, so that without care they would wait for each other in a circle.
        mine = events[:: 1 if number % 2 else -1]
        together.wait()
        return sum(
            writers[number].write(mine[start : start + 100]).written for start in range(0, len(mine), 100)
        )

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(write, range(3))) == 600
    report = verify(engine, NO_SETTLING)
    assert (report.rows, report.findings) == (600, ())


def test_two_processes_under_one_writer_id_keep_one_intact_chain(engine: Engine, seal: Seal) -> None:
    batches = [seal(20) for _ in range(20)]
    writers = [AuditWriter(engine, "audit@same", SystemClock()) for _ in range(2)]
    together = threading.Barrier(2)

    def write(number: int) -> int:
        together.wait()
        return sum(writers[number].write(batch).written for batch in batches[number::2])

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(write, range(2))) == 400
    report = verify(engine, NO_SETTLING)
    assert (report.rows, report.writers, report.findings) == (400, 1, ())


def test_an_id_with_other_content_is_refused(writer: AuditWriter, engine: Engine, seal: Seal) -> None:
    events = seal(3)
    writer.write(events)
    forged = _changed(events[1], severity="low")
    result = writer.write([events[0], forged, *seal(1)])
    assert (result.written, result.duplicates) == (1, 1)
    assert [(event, "other content" in reason) for event, reason in result.refused] == [(forged, True)]
    assert _scalar(engine, "SELECT count(*) FROM audit_event WHERE severity = 'low'") == 0


def test_an_id_with_other_content_inside_one_batch_is_refused(writer: AuditWriter, seal: Seal) -> None:
    events = seal(2)
    forged = _changed(events[0], severity="low")
    result = writer.write([*events, forged, events[0]])
    assert (result.written, result.duplicates) == (2, 1)
    assert [event for event, _ in result.refused] == [forged]


def test_a_forgery_before_its_original_in_one_batch_does_not_refuse_the_original(
    writer: AuditWriter, seal: Seal
) -> None:
    events = seal(1)
    writer.write(events)
    forged = _changed(events[0], severity="low")
    result = writer.write([forged, events[0]])
    assert (result.written, result.duplicates, [event for event, _ in result.refused]) == (0, 1, [forged])


def test_the_data_key_of_a_refused_event_is_not_kept(writer: AuditWriter, engine: Engine, seal: Seal) -> None:
    events = seal(1)
    writer.write(events)
    forged = _changed(events[0], key_id=uuid.uuid4())
    forged = dataclasses.replace(
        forged, data_key=dataclasses.replace(forged.data_key, key_id=forged.record.key_id)
    )
    writer.write([forged])
    assert _scalar(engine, "SELECT count(*) FROM audit_data_key") == 1


@pytest.mark.parametrize("away", [timedelta(days=-400), timedelta(days=2)])
def test_an_event_of_an_impossible_time_is_refused_and_makes_no_partition(
    away: timedelta, engine: Engine, sealer: Sealer, new_event: NewEvent
) -> None:
    moment = datetime.now(UTC) + away
    stray = sealer.seal(new_event(event_id=new_event_id(int(moment.timestamp()) * 10**9)))
    result = AuditWriter(engine, "audit@one", SystemClock()).write([stray, sealer.seal(new_event())])
    assert (result.written, [event for event, _ in result.refused]) == (1, [stray])
    assert len(_partitions(engine)) == 1


def test_partitions_are_made_when_an_event_of_their_month_comes(
    engine: Engine, sealer: Sealer, new_event: NewEvent
) -> None:
    moments = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 12)]
    moments += [moment - timedelta(milliseconds=1) for moment in moments]
    events = [
        sealer.seal(new_event(event_id=new_event_id(round(moment.timestamp() * 1000) * 10**6)))
        for moment in moments
    ]
    writer = AuditWriter(engine, "audit@one", FixedClock(datetime(2026, 12, 2, tzinfo=UTC)))
    assert writer.write(events).written == 6
    months = ["202512", "202601", "202602", "202611", "202612"]
    assert _partitions(engine) == [f"audit_event_p{month}" for month in months]
    assert _partitions(engine, "audit_event_id") == [f"audit_event_id_p{month}" for month in months]
    assert _scalar(engine, "SELECT count(*) FROM audit_event_p202601") == 2
    assert verify(engine, NO_SETTLING).ok


def test_partitions_of_months_to_come_are_made_over_the_turn_of_the_year(engine: Engine) -> None:
    writer = AuditWriter(engine, "upkeep", FixedClock(datetime(2026, 11, 30, 23, 59, tzinfo=UTC)))
    for _ in range(2):
        writer.prepare_partitions()
    assert _partitions(engine) == [f"audit_event_p{month}" for month in ("202611", "202612", "202701")]


def test_two_writers_make_the_same_partition_at_once(engine: Engine, seal: Seal) -> None:
    batches = [seal(5) for _ in range(4)]
    together = threading.Barrier(4)

    def write(number: int) -> int:
        together.wait()
        return AuditWriter(engine, f"audit@{number}", SystemClock()).write(batches[number]).written

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 20
    assert len(_partitions(engine)) == 1


def test_a_partition_is_made_while_somebody_reads_the_log(
    engine: Engine, writer: AuditWriter, seal: Seal
) -> None:
    writer.write(seal(1))
    with engine.begin() as reading, engine.begin() as making:
        reading.execute(text("SELECT count(*) FROM audit_event")).scalar_one()
        making.execute(text("SET LOCAL lock_timeout = '2s'"))
        making.execute(text("SELECT techdeck_audit_ensure_partition('2031-05-17')"))
    assert "audit_event_p203105" in _partitions(engine)


def test_after_a_rollback_partitions_and_keys_are_made_again(
    engine: Engine, writer: AuditWriter, seal: Seal
) -> None:
    events = seal(2)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_writer_head RENAME TO away"))
    with pytest.raises(DBAPIError):
        writer.write(events)
    assert _partitions(engine) == []
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO audit_writer_head"))
    assert writer.write(events).written == 2
    assert _scalar(engine, "SELECT count(*) FROM audit_data_key") == 1


def test_a_partition_dropped_behind_the_writers_back_costs_one_refusal(
    engine: Engine, writer: AuditWriter, seal: Seal
) -> None:
    writer.write(seal(1))
    with engine.begin() as connection:
        for parent in ("audit_event", "audit_event_id"):
            connection.execute(text(f"DROP TABLE {_partitions(engine, parent)[0]}"))
    events = seal(1)
    with pytest.raises(DBAPIError, match="no partition"):
        writer.write(events)
    assert writer.write(events).written == 1


def test_a_connection_that_breaks_is_an_outage_and_the_batch_can_be_repeated(
    engine: Engine, writer: AuditWriter, seal: Seal
) -> None:
    writer.write(seal(1))
    events = seal(5)
    watching = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    with watching, engine.connect() as blocking:
        # The writer waits for the head's row; then its connection is ended.
        blocking.execute(text("SELECT * FROM audit_writer_head FOR UPDATE"))
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(writer.write, events)
            ended = 0
            while not ended and not writing.done():
                ended = watching.execute(
                    text(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                    )
                ).scalar_one()
            with pytest.raises(ServiceUnavailableError, match="unavailable"):
                writing.result()
    result = writer.write(events)
    assert (result.written, result.duplicates) == (5, 0)
    assert verify(engine, NO_SETTLING).ok


def test_a_database_that_is_away_is_named_without_its_password(seal: Seal) -> None:
    engine = connect_database(load_settings(database_url="postgresql+psycopg://me:geheim@127.0.0.1:1/log"))
    with pytest.raises(ServiceUnavailableError) as caught:
        AuditWriter(engine, "audit@one", SystemClock()).write(seal(1))
    assert "127.0.0.1:1/log" in str(caught.value)
    assert "geheim" not in str(caught.value)
    engine.dispose()


def test_what_postgresql_cannot_hold_is_refused_as_a_database_error_and_nothing_is_written(
    engine: Engine, writer: AuditWriter, seal: Seal
) -> None:
    # Decoding refuses this record; here it shows that a refusal inside COPY is one of SQLAlchemy's errors.
    good, bad = seal(2)
    with pytest.raises(DBAPIError):
        writer.write([good, _changed(bad, service="nul\0")])
    assert _scalar(engine, "SELECT count(*) FROM audit_event_id") == 0
    assert writer.write([good]).written == 1


def test_other_work_is_done_once_while_the_rows_are_not_committed_yet(
    writer: AuditWriter, engine: Engine, seal: Seal
) -> None:
    seen: list[int] = []
    result = writer.write(seal(30), lambda: seen.append(_scalar(engine, "SELECT count(*) FROM audit_event")))
    assert (result.written, seen) == (30, [0])
    assert verify(engine, NO_SETTLING).findings == ()


def test_no_other_work_is_done_where_no_row_is_new(writer: AuditWriter, engine: Engine, seal: Seal) -> None:
    events = seal(3)
    writer.write(events)
    seen: list[str] = []
    assert writer.write(events, lambda: seen.append("called")).duplicates == 3
    assert seen == []


def test_an_error_of_the_other_work_leaves_nothing_written_and_the_connection_sound(
    writer: AuditWriter, engine: Engine, seal: Seal
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    events = seal(30)
    backend = "SELECT pg_backend_pid()"
    before = _scalar(engine, backend)
    with pytest.raises(ZeroDivisionError):
        writer.write(events, fail)
    assert _scalar(engine, "SELECT count(*) FROM audit_event") == 0
    assert _scalar(engine, backend) == before
    assert writer.write(events).written == 30
    assert verify(engine, NO_SETTLING).findings == ()


def test_rows_refused_by_postgresql_raise_though_other_work_was_done(
    writer: AuditWriter, engine: Engine, seal: Seal
) -> None:
    events = seal(5)
    with engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE audit_event ADD CONSTRAINT refused CHECK (severity = 'none') NOT VALID")
        )
    with pytest.raises(DBAPIError):
        writer.write(events, lambda: None)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_event DROP CONSTRAINT refused"))
    assert writer.write(events).written == 5


def test_ids_that_a_trigger_swallows_are_an_outage_and_no_duplicates(
    writer: AuditWriter, engine: Engine, seal: Seal
) -> None:
    swallow = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    trigger = "BEFORE INSERT ON audit_event_id FOR EACH ROW EXECUTE FUNCTION swallow()"
    events = seal(2)
    with engine.begin() as connection:
        connection.execute(text(swallow))
        connection.execute(text(f"CREATE TRIGGER swallow {trigger}"))
    with pytest.raises(ServiceUnavailableError, match="keeps no ids"):
        writer.write(events)
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER swallow ON audit_event_id"))
    assert writer.write(events).written == 2


def test_a_worker_that_is_stopped_in_the_middle_of_a_batch_holds_up_the_others_for_a_bounded_time(
    engine: Engine, seal: Seal
) -> None:
    events = seal(3)
    other = AuditWriter(engine, "audit@two", SystemClock())
    stopped = AuditWriter(engine, "audit@one", SystemClock(), stuck_after=timedelta(milliseconds=300))
    results = []
    # While the first one stands still with its ids claimed and not committed, the second claims them too.
    with pytest.raises(ServiceUnavailableError):
        stopped.write(events, lambda: results.append(other.write(events)))
    assert [result.written for result in results] == [3]
    again = stopped.write(events)
    assert (again.written, again.duplicates) == (0, 3)
    assert verify(engine, NO_SETTLING).ok
