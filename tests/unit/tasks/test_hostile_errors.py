"""Nothing that an exception does keeps it from being handled, audited and retried."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from techdeck_tasks import RetryPolicy
from techdeck_tasks.errors import (
    ServiceUnavailableError,
    approachable,
    as_techdeck_error,
    classify,
    error_id_of,
    kind_of,
)
from techdeck_tasks.redaction import sanitize_context
from techdeck_tasks.tasks.disclosure import disclosable
from techdeck_tasks.testing import TechDeckTestbed

SECRET = "password=hunter2hunter2"
TWICE = RetryPolicy(max_retries=2, delay_s=0.1)


class Escape(BaseException):
    """What no `except Exception` stops."""


def escape(*_: Any) -> Any:
    raise Escape(SECRET)


class UnreadableError(ConnectionError):
    def __getattribute__(self, name: str) -> Any:
        raise Escape(name)


class DisarmedError(ServiceUnavailableError):
    """One of ours that turns when it is raised."""

    turned = False

    def __getattribute__(self, name: str) -> Any:
        return escape() if type(self).turned else super().__getattribute__(name)


class Strange(type):
    """A metaclass: even the names of its classes are asked of its code."""

    __getattribute__ = escape
    __hash__ = escape


class LyingText(str):
    __slots__ = ()
    __getitem__ = lower = escape


@dataclass(frozen=True)
class FrozenError(ConnectionError):
    """An ordinary way to write an exception, and one that refuses to have its cause dropped."""

    order: int


def made(name: str, **parts: Any) -> Callable[[], Exception]:
    """Return what makes a ConnectionError of a class with `parts`."""
    kind: Any = type(name, (ConnectionError,), parts)
    return lambda: kind("the lab refused")


def disarmed() -> Exception:
    DisarmedError.turned = False
    error = DisarmedError("the lab is away")
    DisarmedError.turned = True
    return error


def of_strange_class() -> Exception:
    # Made here: even pytest's look at a module's names would run the metaclass.
    class OfStrangeClassError(ConnectionError, metaclass=Strange):
        pass

    return OfStrangeClassError("x")


def led_to_by(inner: Callable[[], Exception]) -> Callable[[], Exception]:
    def outer() -> Exception:
        error = ConnectionError("the lab refused")
        error.__cause__ = inner()
        return error

    return outer


def of_itself() -> Exception:
    error = ConnectionError("the lab refused")
    error.args = (error,)
    return error


def of_unreadable_notes() -> Exception:
    error = ConnectionError("the lab refused")
    error.__notes__ = [UnreadableError("a"), SECRET]  # type: ignore[list-item]  # as a caller might
    return error


def deeply_grouped() -> Exception:
    error: Exception = ConnectionError("the lab refused")
    for _ in range(3000):
        error = ExceptionGroup("more", [error])
    return error


HOSTILE: dict[str, Callable[[], Exception]] = {
    "attributes": lambda: UnreadableError("x"),
    "attributes of ours": disarmed,
    "class": made("HidesClass", __class__=property(escape)),
    "lies about its class": made("Lies", __class__=property(lambda _: ServiceUnavailableError)),
    "dict": made("HidesDict", __dict__=property(escape)),
    "cause": made("HidesCause", __cause__=property(escape)),
    "is its own context": made("OwnContext", __context__=property(lambda self: self)),
    "traceback": made("HidesTraceback", __traceback__=property(escape)),
    "notes": made("HidesNotes", __notes__=property(escape)),
    "notes that are none": made("WrongNotes", __notes__=5),
    "notes that cannot be read": of_unreadable_notes,
    "arguments": made("HidesArguments", args=property(escape)),
    "arguments with itself": of_itself,
    "arguments that cannot be printed": lambda: ConnectionError(UnreadableError("x")),
    "text": made("RaisesText", __str__=escape),
    "text of a text": made("LyingText", __str__=lambda _: LyingText("no")),
    "text without end": made("Recursive", __str__=str),
    "text of 50 MB": lambda: ConnectionError(SECRET + " connection" * 5_000_000),
    "a number of 100,000 digits": lambda: ConnectionError(10**100_000),
    "representation": made("RaisesRepr", __repr__=escape),
    "truth and comparison": made("Untrue", __bool__=escape, __len__=escape, __eq__=escape, __hash__=escape),
    "assignment": made("Unassignable", __setattr__=escape),
    "pickling": made("Unpicklable", __reduce__=escape, __reduce_ex__=escape),
    "module": made("Placeless", __module__=type("Name", (), {"__format__": escape, "__str__": escape})()),
    "metaclass": of_strange_class,
    "a frozen dataclass": lambda: FrozenError(1),
    "a cause that cannot be read": led_to_by(lambda: UnreadableError("x")),
    "a cause that is neither true nor false": led_to_by(made("Neither", __bool__=escape)),
    "a group": lambda: ExceptionGroup("both", [UnreadableError("x"), made("Mute", __str__=escape)()]),
    "a deep group": deeply_grouped,
}


@pytest.fixture
def bed() -> Iterator[TechDeckTestbed]:
    with TechDeckTestbed() as bed:
        yield bed


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_error_is_retried_audited_and_given_up_like_any_other(
    bed: TechDeckTestbed, make: Callable[[], Exception]
) -> None:
    @bed.app.task(name="lab.fetch", service="lab", breaker=False, retry=TWICE)
    def fetch() -> None:
        raise make()

    result = fetch.delay()

    assert result.state == "FAILURE"
    bed.assert_retried(result, times=2)
    bed.assert_audited(outcome="retry", times=2)
    (entry,) = bed.assert_audited(error_code="RETRY_EXHAUSTED", outcome="failed", times=1)
    assert entry.document is not None
    assert "handler_failure" not in entry.document
    assert "hunter2" not in json.dumps([entry.document for entry in bed.audit.entries()], default=str)
    assert "hunter2" not in repr(result.result)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_error_in_the_facts_around_an_error_is_told_by_its_class(
    make: Callable[[], Exception],
) -> None:
    told = sanitize_context({"error": make(), "stage": "load"})
    assert told["stage"] == "load"
    assert "hunter2" not in json.dumps(told)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_error_is_shown_with_its_code(make: Callable[[], Exception]) -> None:
    error = make()
    shown = disclosable(error)
    assert "hunter2" not in f"{shown!r} {shown}"
    assert as_techdeck_error(error).error_code in {"CONNECTION_ERROR", "SERVICE_UNAVAILABLE"}
    assert classify(error).retryable


def test_what_stands_in_place_of_an_error_has_its_id_and_its_class() -> None:
    error = UnreadableError("x")
    stand_in = approachable(error)
    assert approachable(error) is stand_in
    assert error_id_of(stand_in) == error_id_of(error) == as_techdeck_error(error).error_id
    assert kind_of(stand_in) is kind_of(error) is UnreadableError
    assert as_techdeck_error(error).details["original_type"].endswith(".UnreadableError")


def test_an_error_that_answers_is_asked_itself() -> None:
    error = ConnectionError("x")
    assert approachable(error) is error
    assert kind_of(error) is ConnectionError


@pytest.mark.parametrize(
    ("policy", "retries"),
    [
        (RetryPolicy(max_retries=2, delay_s=0.1, never_on=(UnreadableError,)), 0),
        (RetryPolicy(max_retries=2, delay_s=0.1, retry_on=(UnreadableError,)), 2),
    ],
    ids=["never on its class", "on its class"],
)
def test_a_policy_knows_a_hostile_error_by_its_class(
    bed: TechDeckTestbed, policy: RetryPolicy, retries: int
) -> None:
    @bed.app.task(name="lab.fetch", service="lab", breaker=False, retry=policy)
    def fetch() -> None:
        raise UnreadableError("x")

    assert bed.retries_of(fetch.delay()) == retries


def test_a_representation_that_tells_more_than_the_text_does_not_leave_the_process() -> None:
    class TalkativeError(ConnectionError):
        def __repr__(self) -> str:
            return f"TalkativeError({SECRET})"

    assert "hunter2" not in repr(disclosable(TalkativeError("the lab refused")))
