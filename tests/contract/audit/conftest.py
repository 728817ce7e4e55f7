"""A database of its own for each test that asks: who tampers with a log must not meet another test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS, KeySet

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


@pytest.fixture
def writer(engine: Engine) -> AuditWriter:
    return AuditWriter(engine, "audit@one", SystemClock())
