"""The worker image in pytest-celery's cluster: kill its container, restart Redis, lose nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pytest_celery import (
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBroker,
)
from pytest_docker_tools import container, fxtr
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from techdeck_tasks import create_app
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.pipeline.tasks import EXECUTE
from techdeck_tasks.runtime import Runtime, runtime_of
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage import migration
from techdeck_tasks.storage.database import connect_database

ROWS = 1_000
RUNS = 4
PASSWORD = "only-in-this-test"
VISIBILITY_S = 8
"""How long Redis keeps a dead worker's message to itself."""

LEASE_S = 5
"""How long a stage's worker may be silent before it is taken for dead."""

DEFINITION = {
    "name": "people",
    "source": {"url": "/data/people.csv"},
    "stages": [
        {"name": "load", "stage": "dataset_load"},
        {
            "name": "validate",
            "stage": "validation",
            "needs": ["load"],
            "params": {"columns": {"age": {"dtype": "int", "ge": 0, "le": 120}}},
        },
    ],
}


class PersistentRedis(RedisContainer):  # type: ignore[misc]  # pytest-celery is untyped
    """Redis that has its queue again after a restart."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        return [*super().command(*args), "--appendonly", "yes", "--bind", "0.0.0.0"]

    @property
    def host_url(self) -> str:
        """From here, be that a container itself."""
        host, port = self.get_addr("6379/tcp")
        return f"redis://{host}:{port}/0"


class PipelineWorker(CeleryWorkerContainer):  # type: ignore[misc]  # as above
    """A pipeline worker of the project's image."""

    @classmethod
    def worker_name(cls) -> str:
        return "pipeline"

    @classmethod
    def worker_queue(cls) -> str:
        return "pipeline"


@pytest.fixture
def shared_folder(tmp_path: Path) -> Path:
    """What the containers see as /data: keys, artifacts and a source."""
    generate_keys(*(tmp_path / "keys" / name for name in ("producer", "reader", "signer")))
    (tmp_path / "people.csv").write_text("age\n" + "\n".join(str(number % 100) for number in range(ROWS)))
    return tmp_path


# -- the cluster: Redis is broker and result store ---------------------------------------------------


default_redis_broker = container(
    image="{redis_image}",
    command=PersistentRedis.command(),
    ports=fxtr("redis_ports"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=PersistentRedis,
    timeout=60,
)


@pytest.fixture(scope="session")
def redis_image() -> str:
    return os.environ["REDIS_IMAGE"]


@pytest.fixture
def redis_ports() -> dict[str, tuple[str, int]]:
    """A port that stays the same over a restart of the container."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return {"6379/tcp": ("127.0.0.1", free.getsockname()[1])}


@pytest.fixture
def celery_broker(celery_redis_broker: RedisTestBroker) -> RedisTestBroker:
    return celery_redis_broker


@pytest.fixture
def celery_backend_cluster() -> None:
    return None


@pytest.fixture(scope="session")
def postgres_image() -> str:
    return os.environ["POSTGRES_IMAGE"]


postgres = container(
    image="{postgres_image}",
    environment={"POSTGRES_USER": "techdeck", "POSTGRES_DB": "techdeck", "POSTGRES_PASSWORD": PASSWORD},
    network="{default_pytest_celery_network.name}",
    ports={"5432/tcp": ("127.0.0.1", None)},
    timeout=60,
)

default_worker_container = container(
    image="{techdeck_image}",
    command=["techdeck", "worker", "pipeline"],
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes=fxtr("worker_volumes"),
    # The owner of the keys in the shared folder.
    user=f"{os.getuid()}:{os.getgid()}",
    wrapper_class=PipelineWorker,
    timeout=60,
)


@pytest.fixture
def worker_volumes(shared_folder: Path) -> dict[str, dict[str, str]]:
    return {str(shared_folder): {"bind": "/data", "mode": "rw"}}


@pytest.fixture
def default_worker_env(
    celery_redis_broker: RedisTestBroker, runtime: Runtime, postgres: Any
) -> dict[str, str]:
    """Depends on `runtime`, so that the database is migrated before the worker starts."""
    address = f"{postgres.ips.primary}:5432"
    return {
        "HOME": "/tmp",
        "TECHDECK_REDIS_URL": celery_redis_broker.container.url,
        "TECHDECK_DATABASE_URL": f"postgresql+psycopg://techdeck:{PASSWORD}@{address}/techdeck",
        "TECHDECK_KEYS_DIR": "/data/keys/producer",
        "TECHDECK_VISIBILITY_TIMEOUT_SECONDS": str(VISIBILITY_S),
        "TECHDECK_STAGE_LEASE_SECONDS": str(LEASE_S),
        "TECHDECK_TASK_TIME_LIMIT_SECONDS": "6",
        "TECHDECK_TASK_SOFT_TIME_LIMIT_SECONDS": "5",
        "TECHDECK_DEFAULT_RETRY_CAP_SECONDS": "2",
        "TECHDECK_DEFAULT_RETRY_BUDGET_SECONDS": "5",
    }


@pytest.fixture
def runtime(
    celery_redis_broker: RedisTestBroker,
    postgres: Any,
    shared_folder: Path,
    eventually: Callable[..., None],
) -> Iterator[Runtime]:
    """The client's runtime, on this machine."""
    host, port = postgres.get_addr("5432/tcp")
    settings = load_settings(
        redis_url=celery_redis_broker.container.host_url,
        database_url=f"postgresql+psycopg://techdeck:{PASSWORD}@{host}:{port}/techdeck",
        keys_dir=shared_folder / "keys" / "producer",
        reader_keys_dir=shared_folder / "keys" / "reader",
        audit_spool_dir=shared_folder / "client-spool",
        artifact_url=f"file://{shared_folder / 'artifacts'}",
        stage_lease_seconds=LEASE_S,
    )
    engine = connect_database(settings)

    def answers() -> bool:
        try:
            with engine.connect() as connection:
                return bool(connection.scalar(text("SELECT 1")))
        except OperationalError:
            return False

    eventually(answers)
    migration.upgrade(engine)
    engine.dispose()
    runtime = runtime_of(create_app(settings))
    yield runtime
    runtime.engine.dispose()


@pytest.fixture
def celery_setup_app(runtime: Runtime) -> Celery:
    return runtime.app


# -- what must not happen ----------------------------------------------------------------------------


def _states(runtime: Runtime, run_ids: list[str]) -> list[str]:
    with runtime.engine.connect() as connection:
        found = connection.execute(
            text("SELECT state FROM pipeline_run WHERE run_id::text = ANY(:ids)"), {"ids": run_ids}
        )
        return sorted(found.scalars())


def _succeeded(runtime: Runtime, run_ids: list[str]) -> bool:
    """Do what beat has the workers do, and say whether every run has succeeded."""
    runtime.runs.reconcile()
    return _states(runtime, run_ids) == ["succeeded"] * len(run_ids)


def test_runs_outlive_a_killed_worker_and_a_restarted_redis(
    celery_setup: CeleryTestSetup,
    celery_worker: CeleryTestWorker,
    runtime: Runtime,
    eventually: Callable[..., None],
) -> None:
    execute = celery_setup.app.tasks[EXECUTE]
    first = [execute.delay(DEFINITION).id for _ in range(RUNS)]
    eventually(lambda: _states(runtime, first) == ["succeeded"] * RUNS)

    second = [execute.delay(DEFINITION).id for _ in range(RUNS)]
    eventually(lambda: len(_states(runtime, second)) > 0)
    celery_worker.kill()
    celery_worker.restart()
    celery_setup.broker.restart()
    eventually(lambda: _succeeded(runtime, second))

    third = execute.delay(DEFINITION)
    eventually(lambda: _succeeded(runtime, [third.id]))
