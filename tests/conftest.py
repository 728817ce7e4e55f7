"""Real servers for every tier from the contract tier up, started once a test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from techdeck_tasks.devservices import DevServices, ServiceUrls
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings, load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

if TYPE_CHECKING:
    import redis
    from sqlalchemy import Engine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-rounds", type=int, default=1, help="how often each chaos test runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chaos_round" in metafunc.fixturenames:
        metafunc.parametrize("chaos_round", range(metafunc.config.getoption("--chaos-rounds")))


@pytest.fixture(scope="session")
def services() -> Iterator[ServiceUrls]:
    """PostgreSQL and Redis on free ports, gone with the test process."""
    with DevServices() as urls:
        yield urls


@pytest.fixture(scope="session")
def redis_url(services: ServiceUrls) -> str:
    return services.redis_url


@pytest.fixture(scope="session")
def database_url(services: ServiceUrls) -> str:
    """A migrated database; tests share it and use ids of their own."""
    engine = connect_database(load_settings(database_url=services.database_url))
    migration.upgrade(engine)
    engine.dispose()
    return services.database_url


@pytest.fixture
def settings(redis_url: str, database_url: str, tmp_path: Path) -> Settings:
    """Settings on the real servers, with fresh keys and folders of the test's own."""
    settings = load_settings(
        redis_url=redis_url,
        database_url=database_url,
        keys_dir=tmp_path / "keys" / "producer",
        reader_keys_dir=tmp_path / "keys" / "reader",
        audit_spool_dir=tmp_path / "spool",
        artifact_url=(tmp_path / "artifacts").as_uri(),
    )
    generate_keys(settings.keys_dir, settings.reader_keys_dir)
    return settings


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    """A runtime as a client process has it."""
    runtime = runtime_of(create_app(settings))
    yield runtime
    runtime.engine.dispose()


@pytest.fixture
def engine(runtime: Runtime) -> Engine:
    return runtime.engine


@pytest.fixture
def redis_client(runtime: Runtime) -> redis.Redis:
    """The test process's Redis, emptied."""
    runtime.redis.flushall()
    return runtime.redis
