from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Connection, Engine, make_url, text

from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.stream import QUARANTINE, STREAM
from techdeck_tasks.devservices import ServiceUrls
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS, KeySet, generate_keys
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

_DEADLINE_S = 20.0


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition, not for a time."""
    return _wait


@pytest.fixture(scope="session")
def databases(services: ServiceUrls) -> Iterator[tuple[Connection, str]]:
    """A connection that may make databases, and the name of a migrated one to copy."""
    admin = connect_database(load_settings(database_url=services.database_url))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        template = f"template_{secrets.token_hex(6)}"
        connection.execute(text(f"CREATE DATABASE {template}"))
        engine = _connect(services, template)
        migration.upgrade(engine)
        engine.dispose()
        yield connection, template
    admin.dispose()


@pytest.fixture
def engine(databases: tuple[Connection, str], services: ServiceUrls) -> Iterator[Engine]:
    """A migrated database of the test's own."""
    admin, template = databases
    name = f"audit_{secrets.token_hex(6)}"
    admin.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    engine = _connect(services, name)
    yield engine
    engine.dispose()
    admin.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def _connect(services: ServiceUrls, name: str) -> Engine:
    url = make_url(services.database_url).set(database=name)
    return connect_database(load_settings(database_url=url.render_as_string(hide_password=False)))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Redis without anything of the audit's in it."""
    with redis.Redis.from_url(redis_url) as client:
        client.delete(STREAM, QUARANTINE)
        yield client


@pytest.fixture(scope="session")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    generate_keys(folder / "producer", folder / "reader")
    return folder / "producer"


@pytest.fixture
def sealer(keys_dir: Path) -> Sealer:
    public, blind = (KeySet.load(keys_dir / name) for name in (AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS))
    return Sealer(public, blind, "clinic")


@pytest.fixture
def new_event() -> Callable[..., AuditEvent]:
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
