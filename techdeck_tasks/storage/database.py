"""PostgreSQL through SQLAlchemy: the engine, the declarative base, one transaction at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, MetaData, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import DeclarativeBase

from techdeck_tasks.errors import ServiceUnavailableError, ValidationError
from techdeck_tasks.settings import Settings

# Named constraints can be dropped by a migration; PostgreSQL's generated names differ between versions.
NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

_KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""In libpq's words: a server whose machine or network is gone is noticed within a minute, also where it owes
an answer; Linux alone takes two hours. What the URL says wins."""

_SESSION = {
    "client_encoding": "utf8",
    "options": "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres",
}
"""What a database, a role or PGCLIENTENCODING may set otherwise. Rows are written and hashed as UTF-8 bytes,
which PostgreSQL would convert, and times are compared as it spells them."""

_BOUND = text("""
    SELECT set_config(name, :ms, true)
    FROM unnest(ARRAY['statement_timeout', 'idle_in_transaction_session_timeout']) AS name
""")


class Base(DeclarativeBase):
    """Every table of the package; a test holds it equal to what the migrations build."""

    metadata = MetaData(naming_convention=NAMING)


def connect_database(settings: Settings) -> Engine:
    """Return an engine; the first use connects.

    ``hide_parameters`` keeps bound values, which may be a patient's, out of every SQLAlchemy error.

    Raises:
        ValidationError: the URL is malformed, or its driver is not psycopg.
    """
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        raise _malformed("it is no database URL") from None
    if url.drivername != "postgresql+psycopg":
        raise ValidationError(
            f"TECHDECK_DATABASE_URL uses the driver {url.drivername!r}; write postgresql+psycopg://...",
            field="database_url",
        )
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise _malformed("ports are 1 to 65535")
    if "@" in (url.host or ""):  # what stands before it is the rest of a password, and would be printed
        raise _malformed("user and password are percent-encoded, @ as %40")
    if not (url.host or "host" in url.query or "service" in url.query):
        raise _malformed("it names no host")
    try:
        make_conninfo(**{name: str(value) for name, value in url.query.items()})
    except ProgrammingError:
        raise _malformed("what stands behind ? is no option of libpq") from None
    connect_args: dict[str, Any] = {
        **{name: value for name, value in _KEEPALIVE.items() if name not in url.query},
        "connect_timeout": settings.database_connect_timeout_seconds,
        "application_name": "techdeck",
        **_SESSION,
    }
    return create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=8,
        pool_timeout=settings.database_connect_timeout_seconds,
        connect_args=connect_args,
    )


def _malformed(problem: str) -> ValidationError:
    return ValidationError(
        # An example with a password would be redacted.
        f"TECHDECK_DATABASE_URL is malformed: {problem}; write postgresql+psycopg://USER@HOST:5432/NAME, "
        "the password behind USER and a colon",
        field="database_url",
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Yield a connection inside one transaction: committed at the end, rolled back on any error.

    Raises:
        ServiceUnavailableError: PostgreSQL cannot be reached or went away; nothing was committed, unless the
            connection broke during COMMIT itself: callers make their statements safe to repeat.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError) as error:
        raise unavailable(engine, error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise unavailable(engine, error) from error
        raise


def bound(connection: Connection, stuck_after: timedelta) -> None:
    """Let PostgreSQL end this transaction if it stands still or waits for so long.

    A process that is stopped, or its paused machine, holds its locks as long as its connection lives: all who
    need them would wait for it.
    """
    connection.execute(_BOUND, {"ms": str(int(stuck_after / timedelta(milliseconds=1)))})


def unavailable(engine: Engine, error: DBAPIError) -> ServiceUnavailableError:
    """Return the error that names the server, without credentials or statement."""
    where = f"{engine.url.host}:{engine.url.port or 5432}/{engine.url.database}"
    state = getattr(error.orig, "sqlstate", None)
    reason = f"SQLSTATE {state}" if state else type(error.orig).__name__
    return ServiceUnavailableError(
        f"PostgreSQL at {where} is unavailable ({reason}); check TECHDECK_DATABASE_URL and the server",
        service_name="postgresql",
    )
