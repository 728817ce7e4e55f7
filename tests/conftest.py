"""Real servers for every tier from the contract tier up, started once a test process."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from sqlalchemy import Engine, make_url, text

from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.devservices import DevServices, ServiceUrls
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings, load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

if TYPE_CHECKING:
    import redis

NewEvent = Callable[..., AuditEvent]
Databases = Callable[[], AbstractContextManager[Engine]]

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

DEBIAN_PROGRAMS = str(Path(__file__).parents[1] / ".venv" / "debian" / "usr" / "bin")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-rounds", type=int, default=1, help="how often each chaos test runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chaos_round" in metafunc.fixturenames:
        metafunc.parametrize("chaos_round", range(metafunc.config.getoption("--chaos-rounds")))


def find_program(name: str) -> str | None:
    """Return the path of a program: the machine's, or what `.ci/system-packages` unpacked."""
    return shutil.which(name) or shutil.which(name, path=DEBIAN_PROGRAMS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_program"):
        for name in marker.args:
            if find_program(name) is None:
                pytest.skip(f"{name} is not on this machine; run .ci/system-packages")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"NOT RUN {report.nodeid}: {report.longrepr[2]}", yellow=True)


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Gives the path of a program that a test said it needs."""

    def path(name: str) -> str:
        found = find_program(name)
        assert found, f"mark the test with needs_program({name!r})"
        return found

    return path


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
        signing_keys_dir=tmp_path / "keys" / "signer",
        audit_spool_dir=tmp_path / "spool",
        artifact_url=(tmp_path / "artifacts").as_uri(),
    )
    generate_keys(settings.keys_dir, settings.reader_keys_dir, settings.signing_keys_dir)
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


# -- for the tests of the audit log, in every tier ------------------------------------------------------


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
def own_database(databases: Databases) -> Iterator[Engine]:
    """A migrated database of the test's own: who tampers with a log must not meet another test."""
    with databases() as engine:
        yield engine


@pytest.fixture(scope="session")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The producers' keys; the reader's are in the folder `reader` beside."""
    folder = tmp_path_factory.mktemp("keys")
    generate_keys(folder / "producer", folder / "reader", folder / "signer")
    return folder / "producer"


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
