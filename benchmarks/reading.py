"""What reading the audit log costs at a million rows: searches, pages, figures of a report, and exports.

The million is made by PostgreSQL itself, with plausible clear columns and documents that nobody can open; the
export decrypts real ones. On the embedded server, which does not sync to disk.

Run: python -m benchmarks reading
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine, make_url, text

from techdeck_tasks.audit.compliance.report import generate
from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.incidents.store import IncidentStore
from techdeck_tasks.audit.reading.export import ExportFormat, write_entries
from techdeck_tasks.audit.reading.reader import AuditReader
from techdeck_tasks.audit.reading.search import AuditFilter
from techdeck_tasks.audit.sealing import Opener, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices import DevServices
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    KeySet,
    generate_keys,
)
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

ROWS = 1_000_000
SUBJECTS = 20_000
EXPORTED = 20_000
DOCUMENT_BYTES = 2800
ROUNDS = 30
START, DAYS = datetime(2026, 1, 1, tzinfo=UTC), 59
MIDDLE = START + timedelta(days=30)

# The ids are UUIDv7 of the rows' times, as they must be; the rest is spread by arithmetic.
GENERATE = text("""
    INSERT INTO audit_event (occurred_at, event_id, recorded_at, tenant, producer_id, producer_seq,
        event_type, severity, service, operation, retention_days, hipaa_related, hipaa_notify, key_id,
        sealed_document, outcome, error_id, error_code, task_name, task_id, attempt, pipeline_id, stage,
        user_index, subject_index, content_digest, writer_id, writer_seq, prev_hash, row_hash)
    SELECT to_timestamp(ms / 1000.0),
        CAST(lpad(to_hex(ms), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0') AS uuid),
        to_timestamp(ms / 1000.0), 'clinic', CAST(lpad(to_hex(n % 8), 32, '0') AS uuid), n / 8 + 1,
        (ARRAY['error_handling', 'error_handling', 'error_handling', 'audit_read'])[1 + n % 4],
        (ARRAY['low', 'medium', 'high', 'critical'])[1 + n % 7 % 4], 'service-' || n % 20, 'import', 2190,
        n % 5 = 0, n % 10 = 0, CAST(lpad(to_hex(n % 8), 32, 'f') AS uuid), decode(repeat('ab', 400), 'hex'),
        'retry', lpad(to_hex(n), 32, '0'),
        (ARRAY['AUTH_ERROR', 'TIMEOUT_ERROR', 'CONNECTION_ERROR', 'PIPELINE_ERROR', 'INTERNAL_ERROR']
        )[1 + n % 5],
        'clinic.import_results', lpad(CAST(n / 3 AS text), 36, '0'), n % 3,
        lpad(CAST(n / 100 AS text), 36, '0'), 'load', substr(sha256(CAST('u' || n % 50 AS bytea)), 1, 16),
        substr(sha256(CAST('s' || n % :subjects AS bytea)), 1, 16), sha256(CAST(CAST(n AS text) AS bytea)),
        'audit@one', n, sha256(CAST('p' || n AS bytea)), sha256(CAST('r' || n AS bytea))
    FROM (SELECT n, CAST(:start_ms AS bigint) + CAST(n AS bigint) * :step_ms AS ms
        FROM generate_series(1, :rows) AS n) AS numbered
""")


class NoTrail:
    def record(self, event: AuditEvent) -> None:
        del event


def main() -> None:
    with TemporaryDirectory() as folder, DevServices() as urls:
        keys = Path(folder)
        generate_keys(keys / "producer", keys / "reader", keys / "signer")
        with database(urls.database_url, "million") as engine:
            began = time.perf_counter()
            fill(engine, ROWS)
            print(f"{f'{ROWS:,} rows made':<44}{time.perf_counter() - began:>10.1f} s")
            _search(engine)
            _report(engine)
        with database(urls.database_url, "exported") as engine:
            _export(engine, keys)


def fill(engine: Engine, rows: int) -> None:
    """Make `rows` rows of the audit log, spread over `DAYS` from `START`."""
    step_ms = int(timedelta(days=DAYS).total_seconds() * 1000) // rows
    facts = {
        "rows": rows,
        "subjects": SUBJECTS,
        "step_ms": step_ms,
        "start_ms": int(START.timestamp() * 1000),
    }
    with engine.begin() as connection:
        for month in ("2026-01-01", "2026-02-01"):
            ensure = text("SELECT techdeck_audit_ensure_partition(CAST(:month AS date))")
            connection.execute(ensure, {"month": month})
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        connection.execute(GENERATE, facts)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE audit_event"))


def _search(engine: Engine) -> None:
    # The rows' fingerprints are of these names' SHA-256: no key is needed to look them up.
    reader = AuditReader(engine, NoTrail(), None, "bench", _fingerprints)
    _latency("search one subject, by blind index", lambda: reader.search(AuditFilter(subject="s77")))
    _latency("search one user, the newest 100", lambda: reader.search(AuditFilter(user="u7")))
    _latency("search one error", lambda: reader.search(AuditFilter(error_id=f"{777_777:032x}")))
    _latency("the newest 100", reader.search)
    code = AuditFilter(error_code="AUTH_ERROR", since=START, until=MIDDLE)
    _latency("a code in a month, the newest 100", lambda: reader.search(code))
    _latency("offset 900,000", lambda: reader.search(offset=900_000), rounds=3)
    deep = AuditFilter(until=START + timedelta(days=6))
    token = reader.page(deep).next_cursor
    _latency("page by cursor at that depth", lambda: reader.page(deep, 100, token))


def _fingerprints(what: str, value: str) -> list[bytes]:
    del what
    return [hashlib.sha256(value.encode()).digest()[:16]]


def _report(engine: Engine) -> None:
    end = START + timedelta(days=DAYS + 1)
    incidents = IncidentStore(engine, NoTrail(), SystemClock(), 2190)
    _latency("look for new incidents, there are none", incidents.catch_up)
    _latency("report over all rows", lambda: generate(engine, START, end, now=end), rounds=5)
    _latency("report over the second month", lambda: generate(engine, MIDDLE, end, now=end), rounds=5)


def _export(engine: Engine, keys: Path) -> None:
    public, blind = (KeySet.load(keys / "producer" / name) for name in (AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS))
    sealer = Sealer(public, blind, "clinic")
    writer = AuditWriter(engine, "audit@one", SystemClock())
    for start in range(0, EXPORTED, 500):
        writer.write([sealer.seal(_event(number)) for number in range(start, start + 500)])
    opener = Opener(KeySet.load(keys / "reader" / AUDIT_PRIVATE_KEYS))
    reader = AuditReader(engine, NoTrail(), opener, "bench")
    for kind in ExportFormat:
        began = time.perf_counter()
        with reader.export() as entries:
            assert write_entries(entries, kind, StringIO()) == EXPORTED
        rate = EXPORTED / (time.perf_counter() - began)
        print(f"{f'export, decrypted, {kind}':<44}{rate:>10,.0f} a second")


def _event(number: int) -> AuditEvent:
    return AuditEvent(
        event_type=EventType.ERROR_HANDLING,
        severity="high",
        service=f"service-{number % 20}",
        operation="import",
        document={"message": "the importer failed", "traceback": "x" * DOCUMENT_BYTES},
        error_id=f"{number:032x}",
        error_code="DATA_PROCESSING_ERROR",
        user_id=f"user-{number % 50}",
    )


def _latency(what: str, call: Callable[[], object], rounds: int = ROUNDS) -> None:
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    print(f"{what:<44}{statistics.median(times):>10.1f} ms median {max(times):>10.1f} ms worst")


@contextmanager
def database(url: str, name: str) -> Iterator[Engine]:
    """Make a migrated database of that name on the server at `url`."""
    admin = connect_database(load_settings(database_url=url))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    engine = connect_database(load_settings(database_url=own))
    migration.upgrade(engine)
    yield engine
    engine.dispose()


if __name__ == "__main__":
    main()
