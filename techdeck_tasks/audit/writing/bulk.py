"""COPY, which SQLAlchemy does not know, inside a transaction of SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg.abc import PQGen
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_end
from psycopg.waiting import Wait
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_CHUNK_BYTES = 1 << 16


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


def send_rows(copy: psycopg.Copy, rows: Iterable[bytes]) -> None:
    """Send rows that are in PostgreSQL's binary format already."""
    chunk = bytearray(_SIGNATURE)
    for row in rows:
        chunk += row
        if len(chunk) >= _CHUNK_BYTES:
            copy.write(chunk)
            chunk.clear()
    copy.write(chunk + _TRAILER)


def copied_rows(connection: psycopg.Connection, copy: psycopg.Copy) -> Iterator[memoryview]:
    """Yield the rows of a binary ``COPY ... TO STDOUT`` as they come.

    The socket is asked only once libpq holds no more of them.

    Raises:
        psycopg.Error: PostgreSQL ended it in the middle.
    """
    buffered = connection.pgconn.get_copy_data
    row = memoryview(copy.read())[len(_SIGNATURE) :]
    while len(row) > len(_TRAILER):
        yield row
        length, received = buffered(1)
        if length < 0:
            raise _end_of(connection)
        row = received if length > 0 else memoryview(copy.read())
    if row:
        copy.read()


def _end_of(connection: psycopg.Connection) -> psycopg.Error:
    """Return why the rows ended before the trailer; to read on would tell that there is no COPY any more."""
    results = []
    while (result := connection.pgconn.get_result()) is not None:
        results.append(result)
    if not results:
        return psycopg.OperationalError("the rows of a COPY ended in the middle")
    return psycopg.errors.error_from_result(results[0])


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
