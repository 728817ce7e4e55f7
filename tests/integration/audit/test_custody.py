"""The signing and copying beside the drain, with a sink that hangs, and without a database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from sqlalchemy import Engine, text

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.proof.checkpoint import Checkpointer
from techdeck_tasks.audit.proof.custody import Custody
from techdeck_tasks.audit.proof.sink import SegmentStore
from techdeck_tasks.audit.proof.sink_export import SinkExporter
from techdeck_tasks.audit.proof.statement import Signer
from techdeck_tasks.audit.proof.verify import verify
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.drain import Drain
from techdeck_tasks.audit.writing.stream import STREAM, AuditStream, pack, send
from techdeck_tasks.audit.writing.worker import drain_step
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import CHECKPOINT_PRIVATE_KEYS, CHECKPOINT_PUBLIC_KEYS, KeySet
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def signer(keys_dir: Path) -> Signer:
    return Signer(KeySet.load(keys_dir.parent / "signer" / CHECKPOINT_PRIVATE_KEYS))


def _checkpointer(engine: Engine, signer: Signer, interval_s: float = 3600) -> Checkpointer:
    return Checkpointer(engine, signer, SystemClock(), timedelta(seconds=interval_s), 10)


def _checkpoints(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM audit_checkpoint")).scalar_one())


def test_a_worker_that_stops_leaves_its_last_rows_signed_and_copied(
    client: redis.Redis,
    engine: Engine,
    sealer: Sealer,
    new_event: Callable[..., AuditEvent],
    signer: Signer,
    keys_dir: Path,
    tmp_path: Path,
) -> None:
    store = SegmentStore(str(tmp_path / "backup"))

    def make_custody() -> Custody:
        exporter = SinkExporter(engine, store, SystemClock())
        return Custody(_checkpointer(engine, signer), exporter, SystemClock(), 20.0)

    def make_drain(node_name: str) -> Drain:
        return Drain(AuditStream(client, node_name), AuditWriter(engine, node_name, SystemClock()), 100)

    worker = SimpleNamespace(hostname="audit@here")
    step = drain_step(make_drain, make_custody)(worker)
    step.start(worker)
    send(client, [pack(sealer.seal(new_event())) for _ in range(3)])
    step.stop(worker)
    assert client.xlen(STREAM) == 0
    public = KeySet.load(keys_dir / CHECKPOINT_PUBLIC_KEYS)
    # No settling: a row that no checkpoint covers would be a finding.
    report = verify(engine, timedelta(0), keys=public, sink=store)
    assert (report.rows, report.findings) == (3, ())
    assert report.segments == report.checkpoints > 0


def test_several_workers_make_one_checkpoint_where_one_is_due(engine: Engine, signer: Signer) -> None:
    checkpointers = [_checkpointer(engine, signer) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(Checkpointer.make_if_due, checkpointers))
    assert [checkpoint.seq for checkpoint in made if checkpoint is not None] == [1]


def test_a_checkpoint_is_due_after_its_rows_and_after_its_time(
    engine: Engine, signer: Signer, sealer: Sealer, new_event: Callable[..., AuditEvent]
) -> None:
    checkpointer = _checkpointer(engine, signer)
    first = checkpointer.make_if_due()
    writer = AuditWriter(engine, "audit@one", SystemClock())
    writer.write([sealer.seal(new_event()) for _ in range(9)])
    assert first is not None
    assert checkpointer.make_if_due() is None
    writer.write([sealer.seal(new_event())])
    second = checkpointer.make_if_due()
    assert second is not None
    assert (second.seq, second.rows, [head.seq for head in second.heads]) == (2, 10, [10])
    third = _checkpointer(engine, signer, 1e-6).make_if_due()
    assert third is not None
    assert (third.seq, third.rows) == (3, 10)


class _HangingStore(SegmentStore):
    """A sink that answers nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__("memory://never")
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def numbers(self) -> set[int]:
        self.asked.set()
        self.let_go.wait(60)
        raise TimeoutError("the store did not answer")


@pytest.fixture
def hanging() -> Iterator[_HangingStore]:
    store = _HangingStore()
    yield store
    store.let_go.set()


def test_a_sink_that_hangs_is_reported_and_holds_up_neither_checkpoints_nor_the_end(
    engine: Engine,
    signer: Signer,
    hanging: _HangingStore,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = SinkExporter(engine, hanging, SystemClock())
    custody = Custody(_checkpointer(engine, signer, 0.1), exporter, SystemClock(), 0.05)
    custody.start()
    assert hanging.asked.wait(20)
    eventually(lambda: _checkpoints(engine) >= 2)
    eventually(lambda: "the audit sink has not answered" in caplog.text)
    custody.stop(timeout_s=5)
    assert _checkpoints(engine) >= 3


def test_without_the_database_custody_says_so_and_ends(
    signer: Signer, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    engine = connect_database(load_settings(database_url="postgresql+psycopg://me:geheim@127.0.0.1:1/log"))
    custody = Custody(_checkpointer(engine, signer), None, SystemClock(), 1.0)
    custody.start()
    eventually(lambda: "no audit checkpoint could be made" in caplog.text)
    custody.stop(timeout_s=10)
    assert "geheim" not in caplog.text
