"""What of an exception may be shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from techdeck_tasks.errors import ServiceUnavailableError, TechDeckError
from techdeck_tasks.tasks.disclosure import disclosable

SECRET = "password=hunter2hunter2"


class FussyError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def raised(error: BaseException) -> BaseException:
    try:
        try:
            raise KeyError(SECRET)  # noqa: TRY301 - the cause to be hidden
        except KeyError as inner:
            raise error from inner
    except BaseException as caught:  # noqa: BLE001 - whatever was given
        return caught


def test_an_error_that_tells_nothing_is_shown_as_it_is() -> None:
    error = ValueError("row 7 is empty", 7, None, ("a", 1))
    assert disclosable(error) is error


def test_an_error_of_ours_is_shown_as_it_is_without_its_cause() -> None:
    error = raised(ServiceUnavailableError("away"))
    assert disclosable(error) is error
    assert error.__cause__ is error.__context__ is None


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"a {SECRET}"),
        KeyError(SECRET),
        OSError(5, f"disk {SECRET}", f"/data/{SECRET}"),
        RuntimeError({"row": SECRET}),
        LookupError([SECRET]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_foreign_error_keeps_its_type_and_loses_its_secret(error: Exception) -> None:
    shown = disclosable(raised(error))
    assert type(shown) is type(error)
    assert "hunter2" not in f"{shown} {shown!r} {shown.args}"
    assert shown.__cause__ is shown.__context__ is None
    assert shown.__traceback__ is not None


@pytest.mark.parametrize(
    "error",
    [
        FussyError("a", SECRET),
        HostileError(SECRET),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "bad"),
        MemoryError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_cleaned_is_shown_as_its_code_alone(error: Exception) -> None:
    shown = disclosable(error)
    assert isinstance(shown, TechDeckError)
    assert "hunter2" not in f"{shown!r} {shown.to_dict()}"


def test_notes_are_redacted() -> None:
    error = ValueError("plain")
    error.add_note(SECRET)
    assert "hunter2" not in str(disclosable(error).__notes__)


@given(st.lists(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text())), max_size=4))
def test_no_arguments_make_it_raise_or_show_bytes(arguments: list[Any]) -> None:
    shown = disclosable(ValueError(*arguments))
    assert not any(isinstance(argument, bytes) for argument in shown.args)
