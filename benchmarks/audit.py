"""What the audit log costs: stream to committed rows, next to COPY, executemany and a task a row; and verify.

All on the same embedded servers in the same run, into the same table with the same indexes; the servers do
not sync to disk. Raw COPY and executemany write finished rows in transactions of the same size, without ids,
chains, heads or acknowledgements; so does a plain Celery task for each row, run by one worker. Redis appends
to its file and does not rewrite it meanwhile: that falls now on the one measurement and now on the other.

Run: python -m benchmarks audit
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from celery import Celery
from sqlalchemy import Connection, Engine, insert, make_url, text

from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.models import AuditEventRow
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.bulk import bulk_copy
from techdeck_tasks.audit.writing.drain import Drain
from techdeck_tasks.audit.writing.stream import STREAM, AuditStream, pack, send
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices import DevServices
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS, KeySet, generate_keys
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

EVENTS = 20_000
BATCH = 500
TASKS = 2_000
DOCUMENT_BYTES = 2800
COLUMNS = [column.name for column in AuditEventRow.__table__.columns]
COPY = f"COPY audit_event ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
COPY_TYPES = {
    "DATETIME": "timestamptz",
    "BIGINT": "int8",
    "INTEGER": "int4",
    "BOOLEAN": "bool",
    "BLOB": "bytea",
}


def main() -> None:
    with (
        TemporaryDirectory() as folder,
        DevServices() as urls,
        redis.Redis.from_url(urls.redis_url) as client,
    ):
        client.config_set("auto-aof-rewrite-percentage", 0)
        sealer = _sealer(Path(folder))
        began = time.perf_counter()
        payloads = [pack(sealer.seal(_event(number))) for number in range(EVENTS)]
        _show("seal, one producer", EVENTS, time.perf_counter() - began)
        rates = {}
        for workers in (1, 2):
            with _database(urls.database_url, f"drained_{workers}") as engine:
                seconds = _drained(engine, client, payloads, workers)
                rates[workers] = _show(f"stream to committed, {workers} worker(s)", EVENTS, seconds)
                if workers == 1:
                    rows = _rows(engine)
                    gc.freeze()  # neither workers nor verify have the benchmark's rows to look through
                else:
                    began = time.perf_counter()
                    report = verify(engine, timedelta(0))
                    assert (report.rows, report.findings) == (EVENTS, ())
                    _show("verify, one core", EVENTS, time.perf_counter() - began)
        with _database(urls.database_url, "peers") as engine:
            copy = _show("raw COPY of the same rows", EVENTS, _timed(engine, rows, _copy))
        with _database(urls.database_url, "peers_too") as engine:
            _show("executemany of the same rows", EVENTS, _timed(engine, rows, _executemany))
        with _database(urls.database_url, "tasks") as engine:
            seconds = _task_a_row(engine, urls.redis_url, rows[:TASKS])
            task = _show("one Celery task a row, 1 worker", TASKS, seconds)
        for workers, rate in rates.items():
            print(f"{workers} worker(s) / raw COPY: {rate / copy:.2f}; / one task a row: {rate / task:.1f}")


def _show(what: str, number: int, seconds: float) -> float:
    rate = number / seconds
    print(f"{what:<36}{rate:>10,.0f} a second")
    return rate


def _sealer(folder: Path) -> Sealer:
    generate_keys(folder / "producer", folder / "reader", folder / "signer")
    public, blind = (
        KeySet.load(folder / "producer" / name) for name in (AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS)
    )
    return Sealer(public, blind, "clinic")


def _event(number: int) -> AuditEvent:
    return AuditEvent(
        event_type=EventType.ERROR_HANDLING,
        severity="high",
        service=f"service-{number % 20}",
        operation="import",
        document={"message": "the importer failed", "traceback": "x" * DOCUMENT_BYTES},
        outcome="retry",
        error_id=f"{number:032x}",
        error_code="DATA_PROCESSING_ERROR",
        task_name="clinic.import_results",
        task_id=f"{number // 3:036d}",
        attempt=number % 3,
        pipeline_id=f"{number // 100:036d}",
        stage="load",
        user_id=f"user-{number % 50}",
        subject_id=f"patient-{number}",
    )


@contextmanager
def _database(url: str, name: str) -> Iterator[Engine]:
    admin = connect_database(load_settings(database_url=url))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    engine = connect_database(load_settings(database_url=own))
    migration.upgrade(engine)
    AuditWriter(engine, "upkeep", SystemClock()).prepare_partitions()
    yield engine
    engine.dispose()


def _drained(engine: Engine, client: redis.Redis, payloads: Sequence[bytes], workers: int) -> float:
    send(client, payloads)
    engine.dispose()
    began = time.perf_counter()
    children = [_fork_worker(engine, client, f"audit@{number}") for number in range(workers)]
    while client.xlen(STREAM):
        time.sleep(0.002)
    seconds = time.perf_counter() - began
    for child in children:
        _end(child)
    return seconds


def _fork_worker(engine: Engine, client: redis.Redis, name: str) -> int:
    def work() -> None:
        Drain(AuditStream(client, name), AuditWriter(engine, name, SystemClock()), BATCH).start()
        signal.pause()

    return _fork(work)


def _fork(body: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(1)
    return child


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


Row = dict[str, Any]


def _rows(engine: Engine) -> list[Row]:
    with engine.begin() as connection:
        found = connection.execute(AuditEventRow.__table__.select().order_by(AuditEventRow.writer_seq))
        return [dict(row) for row in found.mappings()]


def _timed(engine: Engine, rows: Sequence[Row], write: Callable[[Connection, Sequence[Row]], None]) -> float:
    began = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        with engine.begin() as connection:
            write(connection, rows[start : start + BATCH])
    return time.perf_counter() - began


def _copy(connection: Connection, rows: Sequence[Row]) -> None:
    types = [str(AuditEventRow.__table__.c[name].type) for name in COLUMNS]
    with bulk_copy(connection, COPY) as copy:
        copy.set_types([COPY_TYPES.get(name, name.lower()) for name in types])
        for row in rows:
            copy.write_row(tuple(row.values()))


def _executemany(connection: Connection, rows: Sequence[Row]) -> None:
    connection.execute(insert(AuditEventRow), rows)


def _task_a_row(engine: Engine, redis_url: str, rows: Sequence[Row]) -> float:
    app = Celery("peer", broker=redis_url, set_as_current=False)
    app.conf.task_ignore_result = True

    def write(row: Row) -> None:
        with engine.begin() as connection:
            connection.execute(insert(AuditEventRow), row)

    def work() -> None:
        app.Worker(pool="solo", loglevel="ERROR", quiet=True, without_mingle=True).start()

    task = app.task(write)
    for row in rows:
        task.delay(row)
    engine.dispose()
    began = time.perf_counter()
    worker = _fork(work)
    count = text("SELECT count(*) FROM audit_event")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(count).scalar_one() < len(rows):
            time.sleep(0.02)
    seconds = time.perf_counter() - began
    _end(worker)
    return seconds


if __name__ == "__main__":
    main()
