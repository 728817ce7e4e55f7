"""What a real PostgreSQL says, and what is taken of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from techdeck_tasks.errors import RetryRule, classify
from techdeck_tasks.errors.stack import stack_of
from techdeck_tasks.errors.text import text_of

TABLE = """
    CREATE TEMPORARY TABLE patient (
        id int PRIMARY KEY,
        name varchar(5) NOT NULL,
        age int CHECK (age > 0),
        doctor int REFERENCES patient (id)
    )
"""


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        connection.execute(sa.text(TABLE))
        connection.execute(sa.text("INSERT INTO patient VALUES (1, 'Ann', 3, NULL)"))
        yield connection


@pytest.mark.parametrize(
    ("statement", "code", "retryable"),
    [
        ("INSERT INTO patient VALUES (1, 'Roe', 3, NULL)", "VALIDATION_ERROR", False),
        ("INSERT INTO patient VALUES (2, NULL, 7331, NULL)", "VALIDATION_ERROR", False),
        ("INSERT INTO patient VALUES (2, 'Roe', -7331, NULL)", "VALIDATION_ERROR", False),
        ("INSERT INTO patient VALUES (2, 'Roe', 3, 7331)", "VALIDATION_ERROR", False),
        ("INSERT INTO patient VALUES (2, 'RoeRoe', 3, NULL)", "DATA_PROCESSING_ERROR", False),
        ("SELECT 'Roe'::int", "DATA_PROCESSING_ERROR", False),
        ("SELECT 'a\"Roe\nRoe\"'::int", "DATA_PROCESSING_ERROR", False),
        ("SELECT 'Roe'::date", "DATA_PROCESSING_ERROR", False),
        ("SELECT '{Roe'::int[]", "DATA_PROCESSING_ERROR", False),
        ("SELECT '{\"Roe\" ,'::json", "DATA_PROCESSING_ERROR", False),
        ('SELECT * FROM patient WHERE name = "Roe"', "INTERNAL_ERROR", False),
        ("SELECT 'Roe' FRM patient", "INTERNAL_ERROR", False),
        ("DO $$ BEGIN RAISE EXCEPTION 'patient Roe is dead'; END $$", "DATA_PROCESSING_ERROR", False),
        ("SET LOCAL statement_timeout = 20; SELECT 'Roe', pg_sleep(9)", "TIMEOUT_ERROR", True),
        ("SELECT pg_terminate_backend(pg_backend_pid()), 'Roe'", "SERVICE_UNAVAILABLE", True),
    ],
)
def test_no_value_of_a_statement_reaches_text_or_stack(
    connection: sa.Connection, statement: str, code: str, retryable: bool
) -> None:
    with pytest.raises(sa.exc.DBAPIError) as caught:
        connection.exec_driver_sql(statement)
    error = caught.value
    found = classify(error)
    # A connection that the server ended is invalidated: that says more than the SQLSTATE of the ending.
    expected = "CONNECTION_ERROR" if error.connection_invalidated else code
    assert (found.error_code, found.retryable) == (expected, retryable)
    said = text_of(error) + "\n".join(stack_of(error))
    assert "Roe" not in said
    assert "7331" not in said
    assert "INSERT" not in said
    assert "SELECT" not in said


def test_who_is_not_there_is_a_connection_error(engine: sa.Engine) -> None:
    gone = sa.create_engine(engine.url.set(host="127.0.0.1", port=1, query={}))
    with pytest.raises(sa.exc.OperationalError) as caught:
        gone.connect()
    assert (classify(caught.value).error_code, classify(caught.value).retryable) == ("CONNECTION_ERROR", True)


def test_a_database_that_does_not_exist_is_not_waited_for(engine: sa.Engine) -> None:
    wrong = sa.create_engine(engine.url.set(database="no_such_database"))
    with pytest.raises(sa.exc.OperationalError) as caught:
        wrong.connect()
    assert classify(caught.value).retry_rule is RetryRule.NEVER
