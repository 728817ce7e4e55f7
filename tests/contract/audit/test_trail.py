"""What every audit trail owes its producers: the publisher on Redis, and that of `techdeck_tasks.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from techdeck_tasks.audit.canonical import AuditRecord
from techdeck_tasks.audit.event import AuditEvent, AuditTrail, AuditUnavailableError, EventType
from techdeck_tasks.audit.sealing import MAX_DOCUMENT_BYTES, Opener, Sealer
from techdeck_tasks.audit.writing.publisher import StreamPublisher
from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import STREAM, unpack
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.events import Listeners, Outcome
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.keyring import AUDIT_PRIVATE_KEYS, KeySet
from techdeck_tasks.settings import FailPolicy
from techdeck_tasks.testing.audit import InMemoryAuditTrail

NewEvent = Callable[..., AuditEvent]
POLICIES = {"critical": FailPolicy.CLOSED}
Kept = list[tuple[AuditRecord, dict[str, Any]]]


class World(Protocol):
    """A trail, what a reader finds of it, and how nothing can be kept any more."""

    @property
    def trail(self) -> AuditTrail: ...

    def kept(self) -> Kept: ...

    def fail(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.trail = InMemoryAuditTrail(SystemClock(), "clinic", POLICIES)

    def kept(self) -> Kept:
        return [(entry.record, entry.document or {}) for entry in self.trail.entries()]

    def fail(self) -> None:
        self.trail.away = True


class OnRedis:
    def __init__(self, client: redis.Redis, sealer: Sealer, opener: Opener, folder: Path) -> None:
        self.trail = StreamPublisher(client, sealer, Spool(folder / "spool"), SystemClock(), POLICIES)
        self._client, self._sealer, self._opener, self._folder = client, sealer, opener, folder

    def kept(self) -> Kept:
        entries: Any = self._client.xrange(STREAM)
        sealed = [unpack(fields[b"e"]) for _, fields in entries]
        return [(one.record, self._opener.open(one.record, one.data_key)) for one in sealed]

    def fail(self) -> None:
        nobody = redis.Redis(port=free_port(), socket_connect_timeout=0.25, retry=Retry(NoBackoff(), 0))
        (self._folder / "file").write_bytes(b"")
        self.trail = StreamPublisher(
            nobody, self._sealer, Spool(self._folder / "file" / "spool"), SystemClock(), POLICIES
        )


@pytest.fixture(params=["redis", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "memory":
        yield InMemory()
        return
    opener = Opener(KeySet.load(request.getfixturevalue("keys_dir").parent / "reader" / AUDIT_PRIVATE_KEYS))
    with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
        client.delete(STREAM)
        yield OnRedis(client, request.getfixturevalue("sealer"), opener, tmp_path)


def handler(trail: AuditTrail) -> ErrorHandler:
    return ErrorHandler(
        audit=trail,
        listeners=Listeners(),
        clock=SystemClock(),
        retention_days=30,
        documentation_base_url="docs/errors.md",
    )


def test_events_are_kept_under_their_own_ids_in_order_and_numbered_without_gaps(
    world: World, new_event: NewEvent
) -> None:
    events = [new_event(attempt=number, document={"message": f"no {number}"}) for number in range(3)]
    for event in events:
        world.trail.record(event)

    records, documents = zip(*world.kept(), strict=True)
    assert [record.event_id for record in records] == [event.event_id for event in events]
    assert [record.occurred_at for record in records] == [event.occurred_at for event in events]
    assert [record.producer_seq for record in records] == [1, 2, 3]
    assert [record.attempt for record in records] == [0, 1, 2]
    assert [document["message"] for document in documents] == ["no 0", "no 1", "no 2"]


def test_who_acted_and_whom_it_is_about_leave_no_name(world: World, new_event: NewEvent) -> None:
    for user in ("dr-a", "dr-a", "dr-b"):
        world.trail.record(new_event(user_id=user, subject_id="patient-7"))

    first, second, other = (record for record, _ in world.kept())
    assert first.user_index == second.user_index != other.user_index
    assert first.subject_index == other.subject_index
    assert "dr-a" not in repr(first)


def test_clear_columns_are_cleaned_and_cut_and_documents_that_are_no_json_lose_nothing_else(
    world: World, new_event: NewEvent
) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    world.trail.record(new_event(service="la\0b" + "x" * 400, document={"message": "kept", "odd": Odd()}))
    world.trail.record(new_event(document={"message": "long", "rows": "x" * MAX_DOCUMENT_BYTES}))

    (record, document), (_, cut) = world.kept()
    assert record.service.startswith("la\N{REPLACEMENT CHARACTER}b")
    assert len(record.service) == 255
    assert document == {"unwritable": "RuntimeError", "message": "kept"}
    assert (cut["truncated"], cut["message"]) == (True, "long")


def test_what_goes_through_the_handler_is_redacted(world: World) -> None:
    error = ConnectionError("postgresql://ada:hunter2hunter2@db/lab refused")

    facts = {"password": "tiger", "task_id": "t-1"}
    handled = handler(world.trail).handle(error, facts, outcome=Outcome.RETRY)

    ((record, document),) = world.kept()
    assert (record.error_code, record.outcome, record.task_id) == ("CONNECTION_ERROR", "retry", "t-1")
    assert record.error_id == handled.response["error_id"]
    assert record.retention_days == 30
    assert "hunter2" not in str(document)
    assert "tiger" not in str(document)


def test_what_can_be_kept_nowhere_is_refused_where_the_policy_is_closed(
    world: World, new_event: NewEvent
) -> None:
    world.fail()
    with pytest.raises(AuditUnavailableError):
        world.trail.record(new_event(severity="critical"))
    with pytest.raises(AuditUnavailableError):
        world.trail.record(new_event(event_type=EventType.AUDIT_READ, severity="low"))
    with pytest.raises(AuditUnavailableError):
        handler(world.trail).handle(EncryptionError("no"))


def test_work_goes_on_unaudited_where_the_policy_is_not_closed(world: World, new_event: NewEvent) -> None:
    world.fail()
    world.trail.record(new_event(severity="high"))
    assert handler(world.trail).handle(ValueError("no")).response["error_code"] == "INTERNAL_ERROR"
    assert world.kept() == []
