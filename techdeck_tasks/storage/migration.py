"""Bringing the database schema up to date."""

from __future__ import annotations

import threading
from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.storage.database import transaction

# alembic keeps the environment it runs in global to the process.
_ENVIRONMENT = threading.Lock()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("techdeck_tasks") / "migrations"))
    return config


def upgrade(engine: Engine) -> str:
    """Apply the migrations that are missing, in one transaction; return the revision reached.

    Safe to run by several threads and processes at once: one applies them, the others wait.

    Raises:
        ServiceUnavailableError: PostgreSQL is away; nothing was changed.
        ValidationError: the database is new and cannot hold every text; nothing was changed.
    """
    config = _config()
    with _ENVIRONMENT, transaction(engine) as connection:
        if MigrationContext.configure(connection).get_current_revision() is None:
            _check_encoding(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return str(MigrationContext.configure(connection).get_current_revision())


def _check_encoding(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise ValidationError(
            f"the database is in the encoding {encoding}: what it lacks a letter for could not be stored; "
            "make another one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
            field="database_url",
        )


def pending(engine: Engine) -> bool:
    """Tell whether the schema is not the one this code was written for."""
    with transaction(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current != ScriptDirectory.from_config(_config()).get_current_head()
