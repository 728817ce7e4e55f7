"""COPY, which SQLAlchemy does not know, inside a transaction of SQLAlchemy."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg.abc import PQGen
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_end
from psycopg.waiting import Wait
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
def bulk_copy(
    connection: Connection, statement: str, meanwhile: Callable[[], None] | None = None
) -> Iterator[psycopg.Copy]:
    """Yield psycopg's copy of a ``COPY ... FROM STDIN`` or ``TO STDOUT`` `statement`, which runs on its exit.

    Args:
        connection: where it runs.
        statement: what runs.
        meanwhile: other work, done between the last row sent and PostgreSQL's answer. PostgreSQL collects up
            to a thousand rows in binary format before it inserts the first: most of its time is then.

    Raises:
        DBAPIError: as SQLAlchemy raises it of any other statement, so that callers know one kind of error.
    """
    with driver_errors(statement), driver_of(connection).cursor() as cursor:
        writer = None if meanwhile is None else _UnhurriedWriter(cursor, meanwhile)
        with cursor.copy(statement, writer=writer) as copy:
            yield copy


class _UnhurriedWriter(LibpqWriter):
    """Does other work between the end of the rows and the answer to them."""

    def __init__(self, cursor: psycopg.Cursor, meanwhile: Callable[[], None]) -> None:
        super().__init__(cursor)
        self._meanwhile = meanwhile

    def finish(self, exc: BaseException | None = None) -> None:
        if exc is None:
            self.connection.wait(self._end())
        else:
            super().finish(exc)

    def _end(self) -> PQGen[None]:
        steps = copy_end(self._pgconn, None)
        failure: Exception | None = None
        wanted = next(steps)
        with suppress(StopIteration):
            while wanted is not Wait.R:  # until everything is sent
                wanted = steps.send((yield wanted))
            try:
                self._meanwhile()
            except Exception as error:  # noqa: BLE001 - raised below: the answer must be read first
                failure = error
            while True:
                wanted = steps.send((yield wanted))
        if failure is not None:
            raise failure


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
