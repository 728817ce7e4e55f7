"""Fixtures of tests with real worker processes; what they are made of is in `worker_site`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.runtime import runtime_of
from techdeck_tasks.tasks.messaging import register_serializer

sys.path.append(str(Path(__file__).parent))  # workers and tests import the same sample application

from worker_site import DATABASE_NUMBER, Sample, Site, WorkerProcess, make_sample


@pytest.fixture(scope="session")
def site(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The shared Redis, a database number of this folder's own, and one worker for all tests."""
    url = f"{redis_url.rsplit('/', 1)[0]}/{DATABASE_NUMBER}"
    redis.Redis.from_url(url).flushdb()
    site = Site(url, tmp_path_factory.mktemp("sample"))
    try:
        yield site
    finally:
        site.stop()


@pytest.fixture(scope="session")
def worker(site: Site) -> WorkerProcess:
    worker = site.start_worker()
    worker.wait_ready()
    return worker


@pytest.fixture(scope="session")
def _sample(site: Site) -> Sample:
    return make_sample(site)


@pytest.fixture
def sample(_sample: Sample, worker: WorkerProcess) -> Iterator[Sample]:
    """A client of the running worker, which must outlive the test."""
    register_serializer(lambda: runtime_of(_sample.app).cipher)
    yield _sample
    assert worker.alive, worker.output()[-3000:]


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """A Redis of the test's own, to be stopped and started."""
    server = EmbeddedRedis(tmp_path / "data").start()
    site = Site(server.url, tmp_path, server=server)
    try:
        yield site
    finally:
        site.stop()
        site.server.stop()
