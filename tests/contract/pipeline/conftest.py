"""The same bodies run on PostgreSQL and on the database in memory of `techdeck_tasks.testing`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from techdeck_tasks.runtime import Runtime
from techdeck_tasks.testing.database import in_memory_database


@pytest.fixture(params=["postgresql", "memory"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "postgresql":
        runtime: Runtime = request.getfixturevalue("runtime")
        yield runtime.engine
        return
    engine = in_memory_database()
    yield engine
    engine.dispose()
