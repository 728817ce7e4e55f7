"""COPY, which SQLAlchemy does not know, inside a transaction of SQLAlchemy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_INT64 = struct.Struct(">q")
_EPOCH_MS = 946_684_800_000
"""2000-01-01 UTC, from which PostgreSQL counts."""

pack_bigint = _INT64.pack


def pack_timestamp(us: int) -> bytes:
    """Return a timestamptz as PostgreSQL's binary format has it; `us` counts from 1970 UTC."""
    return _INT64.pack(us - _EPOCH_MS * 1000)


@contextmanager
def bulk_copy(connection: Connection, statement: str) -> Iterator[psycopg.Copy]:
    """Yield psycopg's copy of a ``COPY ... FROM STDIN`` or ``TO STDOUT`` `statement`, which runs on its exit.

    Raises:
        DBAPIError: as SQLAlchemy raises it of any other statement, so that callers know one kind of error.
    """
    with (
        driver_errors(statement),
        driver_of(connection).cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        yield copy


def copied_rows(connection: psycopg.Connection, copy: psycopg.Copy) -> Iterator[tuple[bytes, ...]]:
    """Yield the rows of a binary ``COPY ... TO STDOUT``, as `copy.rows` does with more work.

    That asks the socket for each row; this only once libpq holds no more of them.
    """
    buffered = connection.pgconn.get_copy_data
    parse = copy.formatter.parse_row
    while (row := copy.read_row()) is not None:
        yield row
        while (received := buffered(1))[0] > 0:
            row = parse(received[1])
            if row is None:
                copy.read()
                return
            yield row


def driver_of(connection: Connection) -> psycopg.Connection:
    """Return psycopg's connection inside SQLAlchemy's."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection), "the engine's driver is psycopg"
    return driver


@contextmanager
def driver_errors(statement: str) -> Iterator[None]:
    """Raise psycopg's errors as SQLAlchemy does.

    Raises:
        DBAPIError: for any error of psycopg.
    """
    try:
        yield
    except psycopg.Error as error:
        wrapped = DBAPIError.instance(statement, None, error, psycopg.Error, hide_parameters=True)
        raise wrapped from error
