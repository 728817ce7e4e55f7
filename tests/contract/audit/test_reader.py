from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest
from sqlalchemy import Engine, text

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError, EventType, new_event_id
from techdeck_tasks.audit.reading.reader import MAX_LIMIT, AuditReader
from techdeck_tasks.audit.reading.search import AuditFilter
from techdeck_tasks.audit.sealing import Opener, SealedEvent, Sealer
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import EncryptionError, ServiceUnavailableError, ValidationError
from techdeck_tasks.keyring import KeySet
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import connect_database

NOW = datetime.now(UTC).replace(microsecond=0)


class Trail(Protocol):
    """See conftest."""

    events: list[AuditEvent]
    away: bool

    def record(self, event: AuditEvent) -> None: ...


@pytest.fixture(scope="module")
def log(
    databases: Callable[[], AbstractContextManager[Engine]],
    new_sealer: Callable[[], Sealer],
    new_event: Callable[..., AuditEvent],
) -> Iterator[Engine]:
    """Ten events, a second apart, the last one now; none of the tests changes them."""
    sealer = new_sealer()

    def sealed(number: int) -> SealedEvent:
        moment = NOW - timedelta(seconds=9 - number)
        return sealer.seal(
            new_event(
                event_id=new_event_id(int(moment.timestamp()) * 10**9),
                event_type=EventType.COMPLIANCE_NOTICE if number == 3 else EventType.ERROR_HANDLING,
                severity="critical" if number % 5 == 0 else "low",
                service=f"service-{number % 2}",
                operation=f"operation-{number % 3}",
                error_code=f"CODE_{number % 4}",
                error_id=f"error-{number}",
                task_id=f"task-{number // 2}",
                pipeline_id=f"run-{number // 5}",
                stage="load" if number else None,
                hipaa_related=number > 7,
                user_id="jane",
                document={"message": f"message {number}"},
            )
        )

    with databases() as engine:
        AuditWriter(engine, "audit@one", SystemClock()).write([sealed(number) for number in range(10)])
        yield engine


@pytest.fixture
def reader(log: Engine, trail: Trail, opener: Opener) -> AuditReader:
    return AuditReader(log, trail, opener, "officer")


def _numbers(reader: AuditReader, **wanted: Any) -> list[int]:
    entries = reader.search(AuditFilter(**wanted))
    return [int((entry.record.error_id or "").removeprefix("error-")) for entry in entries]


def test_the_newest_come_first_with_their_plaintext(reader: AuditReader) -> None:
    entries = reader.search()
    assert [entry.document for entry in entries] == [
        {"message": f"message {n}", "user_id": "jane"} for n in range(9, -1, -1)
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"event_type": EventType.COMPLIANCE_NOTICE}, [3]),
        ({"event_type": "compliance_notice"}, [3]),
        ({"severity": "critical"}, [5, 0]),
        ({"error_code": "CODE_1"}, [9, 5, 1]),
        ({"error_id": "error-7"}, [7]),
        ({"service": "service-1"}, [9, 7, 5, 3, 1]),
        ({"operation": "operation-2"}, [8, 5, 2]),
        ({"task_id": "task-2"}, [5, 4]),
        ({"pipeline_id": "run-0"}, [4, 3, 2, 1, 0]),
        ({"stage": "load", "pipeline_id": "run-0"}, [4, 3, 2, 1]),
        ({"hipaa_related": True}, [9, 8]),
        ({"hipaa_related": False, "task_id": "task-3"}, [7, 6]),
        ({"since": NOW - timedelta(seconds=2)}, [9, 8, 7]),
        ({"until": NOW - timedelta(seconds=8)}, [0]),
        ({"since": NOW - timedelta(seconds=5), "until": NOW - timedelta(seconds=3)}, [5, 4]),
        ({"service": "nothing' OR 1=1 --"}, []),
    ],
)
def test_a_filter_restricts_by_every_field_it_names(
    wanted: dict[str, Any], found: list[int], reader: AuditReader
) -> None:
    assert _numbers(reader, **wanted) == found


def test_limit_and_offset_page_through_everything_once(reader: AuditReader) -> None:
    pages = [reader.search(limit=3, offset=offset) for offset in range(0, 12, 3)]
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    ids = [entry.record.event_id for page in pages for entry in page]
    assert len(set(ids)) == 10


@pytest.mark.parametrize(
    ("limit", "offset", "named"),
    [
        (0, 0, "limit of 1 to 10000; got 0"),
        (-1, 0, "limit of 1 to 10000; got -1"),
        (MAX_LIMIT + 1, 0, "limit of 1 to 10000; got 10001"),
        (1, -1, "offset of 0 or more; got -1"),
    ],
)
def test_limits_out_of_bounds_are_refused_and_not_recorded(
    limit: int, offset: int, named: str, reader: AuditReader, trail: Trail
) -> None:
    with pytest.raises(ValidationError, match=named):
        reader.search(limit=limit, offset=offset)
    assert trail.events == []


@pytest.mark.parametrize("side", ["since", "until"])
def test_a_time_without_a_zone_is_refused(side: str, reader: AuditReader) -> None:
    wanted: dict[str, Any] = {side: datetime(2026, 1, 1)}  # noqa: DTZ001 - the subject
    with pytest.raises(ValidationError, match="time zone"):
        reader.search(AuditFilter(**wanted))


def test_a_read_is_on_record_with_reader_and_filter_before_anything_is_read(
    trail: Trail, opener: Opener
) -> None:
    # The database is away: what was recorded then was recorded first.
    engine = connect_database(load_settings(database_url="postgresql+psycopg://me:geheim@127.0.0.1:1/log"))
    reader = AuditReader(engine, trail, opener, "officer")
    with pytest.raises(ServiceUnavailableError):
        reader.search(AuditFilter(error_code="X", since=NOW), limit=5, offset=2)
    (event,) = trail.events
    assert (event.event_type, event.user_id) == (EventType.AUDIT_READ, "officer")
    assert event.document == {
        "reader": "officer",
        "filter": {"error_code": "X", "since": NOW.isoformat()},
        "limit": 5,
        "offset": 2,
    }
    json.dumps(event.document)
    engine.dispose()


def test_nothing_is_returned_when_the_read_cannot_be_recorded(reader: AuditReader, trail: Trail) -> None:
    trail.away = True
    with pytest.raises(AuditUnavailableError):
        reader.search()


def test_a_reader_without_the_private_key_gets_the_clear_columns_only(log: Engine, trail: Trail) -> None:
    entries = AuditReader(log, trail, None, "operator").search()
    assert len(entries) == 10
    assert {entry.document for entry in entries} == {None}
    assert {entry.problem for entry in entries} == {None}
    assert "message" not in json.dumps([entry.to_dict() for entry in entries])
    assert len(trail.events) == 1


def test_a_wrong_private_key_is_refused_with_the_remedy(log: Engine, trail: Trail) -> None:
    foreign = Opener(KeySet("foreign", {"foreign": secrets.token_bytes(32)}))
    with pytest.raises(EncryptionError, match="add the key file that has it"):
        AuditReader(log, trail, foreign, "officer").search()


def test_an_entry_as_json_shows_neither_ciphertext_nor_blind_index(reader: AuditReader) -> None:
    entry = reader.search(limit=1)[0]
    shown = json.loads(json.dumps(entry.to_dict()))
    assert not {"sealed_document", "user_index", "subject_index"} & shown.keys()
    assert shown["document"] == {"message": "message 9", "user_id": "jane"}
    assert shown["occurred_at"] == NOW.isoformat()


def test_one_bad_document_hides_no_other(
    engine: Engine, trail: Trail, opener: Opener, seal: Callable[[int], list[SealedEvent]]
) -> None:
    good, bad = seal(2)
    record = dataclasses.replace(bad.record, sealed_document=b"nothing that opens, though well chained")
    AuditWriter(engine, "audit@one", SystemClock()).write([good, SealedEvent.of(record, bad.data_key)])
    entries = AuditReader(engine, trail, opener, "officer").search()
    by_id = {entry.record.event_id: entry for entry in entries}
    assert by_id[good.record.event_id].document is not None
    damaged = by_id[bad.record.event_id]
    assert damaged.document is None
    assert "techdeck audit verify" in str(damaged.problem)


def test_a_shredded_document_is_absent_and_its_row_stays(
    engine: Engine, trail: Trail, opener: Opener, seal: Callable[[int], list[SealedEvent]]
) -> None:
    AuditWriter(engine, "audit@one", SystemClock()).write(seal(2))
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit_data_key SET sealed_key = '', erased_at = now()"))
    entries = AuditReader(engine, trail, opener, "officer").search()
    assert [(entry.document, entry.problem) for entry in entries] == [(None, None)] * 2
    assert all(entry.erased_at is not None for entry in entries)
