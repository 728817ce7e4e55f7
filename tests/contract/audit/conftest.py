"""A database of its own for each test that asks: who tampers with a log must not meet another test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.audit.reading.search import BlindIndexes
from techdeck_tasks.audit.sealing import Opener, SealedEvent, Sealer, blind_index
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import AUDIT_PRIVATE_KEYS, AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS, KeySet

NewEvent = Callable[..., AuditEvent]
Databases = Callable[[], AbstractContextManager[Engine]]


@pytest.fixture
def engine(own_database: Engine) -> Engine:
    return own_database


@pytest.fixture(scope="session")
def new_sealer(keys_dir: Path) -> Callable[[], Sealer]:
    """Makes producers."""

    def new() -> Sealer:
        return Sealer(
            KeySet.load(keys_dir / AUDIT_PUBLIC_KEYS), KeySet.load(keys_dir / BLIND_INDEX_KEYS), "clinic"
        )

    return new


@pytest.fixture
def sealer(new_sealer: Callable[[], Sealer]) -> Sealer:
    return new_sealer()


@pytest.fixture
def seal(sealer: Sealer, new_event: NewEvent) -> Callable[[int], list[SealedEvent]]:
    """Seals so many events of one producer."""

    def seal(count: int) -> list[SealedEvent]:
        return [sealer.seal(new_event(attempt=number)) for number in range(count)]

    return seal


class Trail:
    """Remembers what was recorded; refuses when told to."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.away = False

    def record(self, event: AuditEvent) -> None:
        if self.away:
            raise AuditUnavailableError("no place left")
        self.events.append(event)


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture(scope="session")
def opener(keys_dir: Path) -> Opener:
    return Opener(KeySet.load(keys_dir.parent / "reader" / AUDIT_PRIVATE_KEYS))


@pytest.fixture(scope="session")
def blind_indexes(keys_dir: Path) -> BlindIndexes:
    keys = KeySet.load(keys_dir / BLIND_INDEX_KEYS).keys.values()
    return lambda what, value: [blind_index(key, "clinic", what, value) for key in keys]


@pytest.fixture
def writer(engine: Engine) -> AuditWriter:
    return AuditWriter(engine, "audit@one", SystemClock())
