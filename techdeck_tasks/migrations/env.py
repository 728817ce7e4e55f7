"""Runs the migrations on the connection it is handed, or on the one that the settings name."""

from __future__ import annotations

import re
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from techdeck_tasks.alerts import models as _alert_models  # noqa: F401 - fills Base.metadata
from techdeck_tasks.audit import models as _audit_models  # noqa: F401 - fills Base.metadata
from techdeck_tasks.audit import review_models as _review_models  # noqa: F401 - fills Base.metadata
from techdeck_tasks.pipeline import models as _pipeline_models  # noqa: F401 - fills Base.metadata
from techdeck_tasks.settings import load_settings
from techdeck_tasks.storage.database import Base, connect_database
from techdeck_tasks.web import models as _web_models  # noqa: F401 - fills Base.metadata

_PARTITION = re.compile(r"audit_event(_id)?_p\d{6}")

# Two migrators at once would both find an empty version table; the second one waits here.
_LOCK = text("SELECT pg_advisory_xact_lock(7236589410021)")


def include_name(name: str | None, type_: str, _parents: Any) -> bool:
    """Leave out what is made at run time: the monthly partitions."""
    return not (type_ == "table" and name is not None and _PARTITION.fullmatch(name))


def run(connection: Connection) -> None:
    """Migrate inside one transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=include_name,
        compare_server_default=True,
    )
    with context.begin_transaction():
        connection.execute(_LOCK)
        context.run_migrations()


handed = context.config.attributes.get("connection")
if handed is not None:
    run(handed)
else:
    with connect_database(load_settings()).begin() as own:
        run(own)
