"""A database of its own for each test that asks: who tampers with a log must not meet another test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text

from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writer import AuditWriter
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices import ServiceUrls
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS, KeySet, generate_keys
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

NewEvent = Callable[..., AuditEvent]
Databases = Callable[[], AbstractContextManager[Engine]]


@pytest.fixture(scope="session")
def databases(services: ServiceUrls) -> Iterator[Databases]:
    """Makes migrated databases, each a copy of one that is migrated once."""
    url = make_url(services.database_url)

    def connect(name: str) -> Engine:
        return connect_database(
            load_settings(database_url=url.set(database=name).render_as_string(hide_password=False))
        )

    template = f"template_{secrets.token_hex(6)}"
    with connect("postgres").connect() as connection:
        admin = connection.execution_options(isolation_level="AUTOCOMMIT")
        admin.execute(text(f"CREATE DATABASE {template}"))
        migrated = connect(template)
        migration.upgrade(migrated)
        migrated.dispose()

        @contextmanager
        def new() -> Iterator[Engine]:
            name = f"audit_{secrets.token_hex(6)}"
            admin.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
            engine = connect(name)
            try:
                yield engine
            finally:
                engine.dispose()
                admin.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

        yield new
    connection.engine.dispose()


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    """A migrated database of the test's own."""
    with databases() as engine:
        yield engine


@pytest.fixture(scope="session")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The producers' keys; the reader's are in the folder `reader` beside."""
    folder = tmp_path_factory.mktemp("keys")
    generate_keys(folder / "producer", folder / "reader")
    return folder / "producer"


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


@pytest.fixture(scope="session")
def new_event() -> NewEvent:
    def new(**values: Any) -> AuditEvent:
        facts: dict[str, Any] = {
            "event_type": EventType.ERROR_HANDLING,
            "severity": "high",
            "service": "lab",
            "operation": "import",
            "document": {"message": "the importer failed"},
        }
        return AuditEvent(**(facts | values))

    return new


@pytest.fixture
def seal(sealer: Sealer, new_event: NewEvent) -> Callable[[int], list[SealedEvent]]:
    """Seals so many events of one producer."""

    def seal(count: int) -> list[SealedEvent]:
        return [sealer.seal(new_event(attempt=number)) for number in range(count)]

    return seal


@pytest.fixture
def writer(engine: Engine) -> AuditWriter:
    return AuditWriter(engine, "audit@one", SystemClock())
