"""What is taken from the text of foreign exceptions, and what is left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pandera.polars as pa
import polars as pl
import psycopg
import pytest
import requests
import sqlalchemy as sa
from celery.exceptions import MaxRetriesExceededError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError, PendingRollbackError, StatementError

from techdeck_tasks.errors.stack import stack_of
from techdeck_tasks.errors.text import MAX_TEXT_LENGTH, text_of

NAME = "Jane Roe"


class Diagnosis:
    def __init__(self, primary: str) -> None:
        self.message_primary = primary


def from_server(cls: type[psycopg.Error], primary: str, rest: str = "") -> psycopg.Error:
    """Make the error psycopg raises for a reply of the server, whose diagnosis needs no connection."""
    kind: type[psycopg.Error] = type(
        cls.__name__, (cls,), {"diag": Diagnosis(primary), "__module__": cls.__module__}
    )
    return kind(f"{primary}\n{rest}")


def raised(call: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller knows which
        call()
    return caught.value


def test_the_detail_of_postgresql_and_the_parameters_of_sqlalchemy_are_left_behind() -> None:
    original = from_server(
        psycopg.errors.UniqueViolation,
        'duplicate key value violates unique constraint "patient_name_key"',
        f"DETAIL:  Key (name)=({NAME}) already exists.",
    )
    error = IntegrityError("INSERT INTO patient VALUES (%(name)s)", {"name": NAME}, original)
    assert NAME in str(error)
    assert text_of(error) == (
        "(psycopg.errors.UniqueViolation) SQLSTATE 23505 UniqueViolation: "
        'duplicate key value violates unique constraint "patient_name_key"'
    )


@pytest.mark.parametrize(
    ("cls", "primary"),
    [
        (psycopg.errors.InvalidTextRepresentation, f'invalid input syntax for type integer: "{NAME}"'),
        (psycopg.errors.InvalidTextRepresentation, f'malformed array literal: "a"{NAME}"b"'),
        (psycopg.errors.InvalidTextRepresentation, f'invalid input syntax for type integer: "a\n{NAME}"'),
        (psycopg.errors.SyntaxError, f'syntax error at or near "{NAME}"'),
        (psycopg.errors.UndefinedColumn, f'column "{NAME}" does not exist'),
        (psycopg.errors.RaiseException, f"patient {NAME} is dead"),
        (psycopg.errors.InvalidDatetimeFormat, f"invalid value '{NAME}'"),
    ],
)
def test_literal_values_in_primary_messages_are_cut(cls: type[psycopg.Error], primary: str) -> None:
    text = text_of(from_server(cls, primary, f"DETAIL: {NAME}"))
    assert "Roe" not in text
    assert str(cls.sqlstate) in text


def test_an_error_of_connecting_keeps_its_reason_and_loses_what_is_quoted() -> None:
    error = psycopg.OperationalError('connection failed: FATAL:  role "jroe" does not exist\nmore')
    assert text_of(error) == "connection failed: FATAL:  role [...] does not exist"


def test_a_driver_that_is_not_known_loses_every_literal() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        error = raised(lambda: connection.execute(sa.text(f"SELECT nothing('{NAME}') FRM \"{NAME}\"")))
    engine.dispose()
    assert "Roe" not in text_of(error)
    assert "sqlite3.OperationalError" in text_of(error)


def test_a_failure_before_the_driver_keeps_neither_statement_nor_parameters() -> None:
    error = StatementError(f"wrong ({NAME})", f"SELECT '{NAME}'", {"name": NAME}, None)
    assert text_of(error) == "wrong ([...])"


def test_the_original_behind_a_pending_rollback_is_left_behind() -> None:
    error = PendingRollbackError(f"rolled back. Original exception was: Key (name)=({NAME})")
    assert text_of(error) == "rolled back."


def test_the_input_of_pydantic_is_left_behind() -> None:
    class Visit(BaseModel):
        age: int
        score: dict[str, int]

    error = raised(lambda: Visit.model_validate({"age": NAME, "score": {NAME: "x"}}))
    assert NAME in str(error)
    assert text_of(error) == "2 invalid in Visit: age: int_parsing; score.*: int_parsing"


def test_the_failure_cases_of_pandera_are_left_behind() -> None:
    frame = pl.DataFrame({"name": [NAME]})
    schema = pa.DataFrameSchema({"name": pa.Column(str, pa.Check.isin(["a"]))})
    for lazy in (False, True):
        error = raised(lambda lazy=lazy: schema.validate(frame, lazy=lazy))  # type: ignore[misc]
        assert "Roe" not in text_of(error)
        assert "DATAFRAME_CHECK" in text_of(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pl.DataFrame({"name": [NAME]}).select(pl.col("name").cast(pl.Int64)),
        lambda: pl.read_csv(f"age\n1\n{NAME}\n".encode(), schema={"age": pl.Int64}),
        lambda: pl.read_csv(f'age\n1\n"a\n{NAME}"\n'.encode(), schema={"age": pl.Int64}),
        lambda: pl.Series([NAME]).str.to_date("%Y"),
    ],
)
def test_the_values_of_polars_are_left_behind(call: Callable[[], Any]) -> None:
    error = raised(call)
    assert "Roe" not in text_of(error)


def test_queries_of_urls_are_left_behind() -> None:
    answer = httpx.Response(404, request=httpx.Request("GET", "https://ehr.example/p?name=Roe"))
    reply = requests.Response()
    reply.status_code, reply.url = 500, "https://ehr.example/p?name=Roe"
    for error in (raised(answer.raise_for_status), raised(reply.raise_for_status)):
        assert "Roe" not in text_of(error)
        assert "https://ehr.example/p?[...]" in text_of(error)


def test_arguments_of_tasks_and_commands_are_left_behind() -> None:
    retries = MaxRetriesExceededError(f"Can't retry lab.load[1] args:('{NAME}',) kwargs:{{}}")
    assert text_of(retries) == "Can't retry lab.load[1]"
    assert text_of(subprocess.CalledProcessError(1, ["load", NAME])) == "a command ended with status 1"
    assert text_of(subprocess.TimeoutExpired(["load", NAME], 2)) == "a command took longer than 2 s"


def test_a_group_tells_its_first_members() -> None:
    group = ExceptionGroup("stages", [ValueError(f"e{n}") for n in range(7)])
    assert text_of(group) == (
        "stages (7): ValueError: e0; ValueError: e1; ValueError: e2; ValueError: e3; "
        "ValueError: e4; and 2 more"
    )


def test_a_text_that_cannot_be_read_is_named_so() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert text_of(MuteError()) == "(its text could not be read)"


def test_a_long_text_is_cut() -> None:
    assert len(text_of(ValueError("a" * 10**6))) == MAX_TEXT_LENGTH


@given(st.text(max_size=200))
def test_any_other_text_is_taken_as_it_is(text: str) -> None:
    assert text_of(ValueError(text)) == text


@given(st.text(min_size=3, max_size=40).filter(lambda value: value.strip('" \n') == value))
def test_no_value_that_postgresql_quotes_survives(value: str) -> None:
    planted = f"§{value}§"
    error = from_server(psycopg.errors.InvalidTextRepresentation, f'invalid input syntax: "{planted}"')
    assert planted not in text_of(error)


def test_a_stack_tells_the_chain_without_source_lines_and_data() -> None:
    def load() -> None:
        original = from_server(psycopg.errors.UniqueViolation, "duplicate key", f"DETAIL: {NAME}")
        raise RuntimeError("loading failed") from IntegrityError("INSERT", {"name": NAME}, original)

    stack = "\n".join(stack_of(raised(load)))
    assert "Roe" not in stack
    assert stack.index("SQLSTATE 23505") < stack.index("which led to:") < stack.index("RuntimeError: loading")
    assert "in test_a_stack_tells_the_chain_without_source_lines_and_data.<locals>.load" in stack
    assert "raise RuntimeError" not in stack


def test_a_suppressed_context_and_a_circle_of_causes_end_the_stack() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert len(stack_of(first)) == 3

    def hide() -> None:
        try:
            int("hidden")
        except ValueError:
            raise RuntimeError("shown") from None

    assert "hidden" not in "\n".join(stack_of(raised(hide)))


def test_a_text_that_takes_long_to_build_is_built_once() -> None:
    class SlowError(Exception):
        read = 0

        def __str__(self) -> str:
            type(self).read += 1
            return "slow"

    error = SlowError()
    assert [text_of(error) for _ in range(3)] == ["slow"] * 3
    assert SlowError.read == 1


@pytest.mark.parametrize("raised", [SystemExit(3), GeneratorExit(), RecursionError(), ValueError()])
def test_a_text_that_raises_is_told_to_be_unreadable(raised: BaseException) -> None:
    class HostileError(Exception):
        def __str__(self) -> str:
            raise raised

    assert text_of(HostileError()) == "(its text could not be read)"
