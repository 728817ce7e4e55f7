"""The tables of pipelines in the process's memory, so that the real `PipelineStore` runs without PostgreSQL.

SQLite, taught the three things that the store's statements expect of PostgreSQL: aware times, JSONB, and its
operator ``@>``. The store on it passes the same contract suite as the store on PostgreSQL.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Any

from sqlalchemy import DateTime, Dialect, Engine, QueuePool, Table, create_engine, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteTypeCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.types import TypeEngine

from techdeck_tasks.pipeline import models
from techdeck_tasks.storage.database import Base

_CONTAINS = "jsonb_contains"


class _UtcDateTime(DateTime):
    """Aware times, kept as ISO 8601 in UTC: their text sorts as the times do."""

    def bind_processor(self, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        return lambda value: (
            None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")
        )

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:  # noqa: ARG002 - as above
        return lambda text: text and datetime.fromisoformat(text)


class _Types(SQLiteTypeCompiler):
    def visit_JSONB(self, type_: TypeEngine[Any], **options: Any) -> str:  # noqa: N802 - SQLAlchemy's name
        return self.visit_JSON(type_, **options)  # type: ignore[no-any-return,no-untyped-call]  # untyped there


class _Statements(SQLiteCompiler):
    def visit_custom_op_binary(self, element: Any, operator: Any, **options: Any) -> str:
        if operator.opstring != "@>":
            return str(super().visit_custom_op_binary(element, operator, **options))  # type: ignore[no-untyped-call]  # untyped there
        left, right = (self.process(side, **options) for side in (element.left, element.right))
        return f"{_CONTAINS}({left}, {right})"


class InMemoryDialect(SQLiteDialect_pysqlite):
    """SQLite that understands the statements written for PostgreSQL."""

    name = "sqlite"
    driver = "techdeck"
    supports_statement_cache = True
    statement_compiler = _Statements
    type_compiler_cls = _Types
    colspecs = {**SQLiteDialect_pysqlite.colspecs, DateTime: _UtcDateTime}  # noqa: RUF012 - SQLAlchemy's shape


registry.register("sqlite.techdeck", __name__, InMemoryDialect.__name__)


def in_memory_database() -> Engine:
    """Return an engine on a new, empty database with the tables of pipelines; it ends with the engine.

    It has one connection: transactions of several threads take turns.
    """
    engine = create_engine(
        "sqlite+techdeck://",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare)
    Base.metadata.create_all(engine, _tables())
    return engine


def _tables() -> list[Table]:
    package = models.__name__.rpartition(".")[0]
    return [
        mapper.local_table
        for mapper in Base.registry.mappers
        if mapper.class_.__module__.startswith(package) and isinstance(mapper.local_table, Table)
    ]


def _prepare(connection: Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.create_function(_CONTAINS, 2, _contains, deterministic=True)


def _contains(left: str | None, right: str | None) -> bool | None:
    if left is None or right is None:
        return None
    return _within(json.loads(right), json.loads(left))


def _within(part: Any, whole: Any) -> bool:
    """Whether `whole @> part`, as PostgreSQL has it for objects, arrays and scalars."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return all(any(_within(wanted, item) for item in whole) for wanted in part)
    return bool(part == whole)
