from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import redis
from sqlalchemy import Engine, text

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.drain import Drain
from techdeck_tasks.audit.writing.stream import STREAM, AuditStream, pack, send
from techdeck_tasks.audit.writing.worker import drain_step
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock


def test_a_worker_drains_under_its_own_name_and_stops_in_order(
    client: redis.Redis, engine: Engine, sealer: Sealer, new_event: Callable[..., AuditEvent]
) -> None:
    def make_drain(node_name: str) -> Drain:
        return Drain(AuditStream(client, node_name), AuditWriter(engine, node_name, SystemClock()), 100)

    send(client, [pack(sealer.seal(new_event()))])
    worker = SimpleNamespace(hostname="audit@here")
    step = drain_step(make_drain)(worker)
    step.stop(worker)
    step.start(worker)
    step.stop(worker)
    assert client.xlen(STREAM) == 0
    with engine.connect() as connection:
        writers = connection.execute(text("SELECT writer_id, writer_seq FROM audit_writer_head")).all()
    assert [tuple(writer) for writer in writers] == [("audit@here", 1)]
