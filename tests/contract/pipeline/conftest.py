from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from techdeck_tasks.devservices import EmbeddedPostgres
from techdeck_tasks.devservices.server import Retention
from techdeck_tasks.pipeline import models  # noqa: F401 - its tables are to be made
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.database import Base, connect_database


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    server = EmbeddedPostgres(retention=Retention.REMOVE)
    server.start()
    try:
        made = connect_database(Settings(database_url=SecretStr(server.url)))
        Base.metadata.create_all(made)
        yield made
        made.dispose()
    finally:
        server.stop()
