"""Contexts become plain, JSON-safe, redacted data, whatever they hold."""

from __future__ import annotations

import enum
import json
import math
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from techdeck_tasks.redaction import REDACTED, sanitize_context
from techdeck_tasks.redaction.context import (
    CYCLE,
    MAX_CHARS,
    MAX_ITEMS,
    MAX_STRING_CHARS,
    TRUNCATED,
    UNPRINTABLE,
)


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Hostile(UserDict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")

    def __str__(self) -> str:
        return "hostile with password=hunter2"


class Colour(enum.IntEnum):
    RED = 1


@dataclass
class Login:
    user: str
    password: str
    note: str


@pytest.mark.parametrize(
    "key",
    [
        "password", "token", "secret", "api_key", "private_key", "authorization", "cookie", "session_id",
        "user_data", "DB_PASSWORD", "X-Api-Key", "clientSecret", "refreshToken", "Set-Cookie", "sessionId",
        "encryption_key", "ssn", "date_of_birth", "patientName", "email", "phone_number", "mrn", "dsn",
        "full_name", "mother", "next_of_kin", "dob", "birthday", "admission_date", "dateOfDeath",
        "patient_id", "emergency_contact",
    ],
)  # fmt: skip
def test_a_value_under_a_sensitive_key_is_hidden(key: str) -> None:
    assert sanitize_context({key: "anything"}) == {key: REDACTED}
    assert sanitize_context({"a": [{key: {"deep": 1}}]}) == {"a": [{key: REDACTED}]}


@pytest.mark.parametrize(
    "key", ["max_tokens", "token_type", "stage", "task_id", "keyspace", "author", "monkey", "count"]
)
def test_a_value_under_an_ordinary_key_stays(key: str) -> None:
    assert sanitize_context({key: "value"}) == {key: "value"}


def test_the_absence_of_a_secret_is_shown() -> None:
    assert sanitize_context({"password": None, "token": False}) == {"password": None, "token": False}


def test_strings_are_redacted_in_every_kind_of_container() -> None:
    context = {
        "list": ["password=hunter2"],
        "tuple": ("password=hunter2",),
        "set": {"password=hunter2"},
        "bytes": b"password=hunter2",
        "login": Login("mia", "hunter2", "password=hunter2"),
        "error": ValueError("password=hunter2"),
        "mapping": UserDict({"note": "password=hunter2"}),
    }
    result = sanitize_context(context)
    assert "hunter2" not in json.dumps(result)
    assert result["login"] == {"user": "mia", "password": REDACTED, "note": f"password={REDACTED}"}
    assert result["error"] == {"type": "ValueError", "message": f"password={REDACTED}"}
    assert result["bytes"] == f"password={REDACTED}"


def test_keys_are_redacted_and_none_is_lost() -> None:
    result = sanitize_context({"mia@clinic.test": 1, "max@clinic.test": 2, b"raw": 3, 4: 5})
    assert result == {REDACTED: 1, f"{REDACTED} (2)": 2, "raw": 3, "4": 5}


def test_a_named_value_is_hidden_by_its_name() -> None:
    assert sanitize_context({"name": "DB_PASSWORD", "value": "hunter2"}) == {
        "name": "DB_PASSWORD",
        "value": REDACTED,
    }


def test_a_cycle_is_named() -> None:
    context: dict[str, Any] = {"a": []}
    context["a"].append(context)
    assert sanitize_context(context) == {"a": [CYCLE]}


def test_a_value_that_occurs_twice_is_no_cycle() -> None:
    shared = {"stage": "load"}
    assert sanitize_context([shared, shared]) == [shared, shared]


def test_depth_is_bounded() -> None:
    context: Any = "bottom"
    for _ in range(5000):
        context = [context]
    assert TRUNCATED in json.dumps(sanitize_context(context))


def test_width_is_bounded_and_counted() -> None:
    assert sanitize_context(list(range(1000)))[-1] == f"{TRUNCATED} {1000 - MAX_ITEMS} more"
    assert sanitize_context({str(n): n for n in range(1000)})[TRUNCATED] == 1000 - MAX_ITEMS


def test_size_is_bounded_whatever_the_shape() -> None:
    context: Any = "x"
    for _ in range(10):
        context = [context] * 100
    assert len(json.dumps(sanitize_context(context))) < 500_000


def test_a_huge_integer_is_described() -> None:
    assert sanitize_context(10**100_000) == "<integer of 332193 bits>"


def test_numbers_that_json_lacks_become_strings() -> None:
    assert sanitize_context([math.nan, math.inf, -math.inf, 1.5, Colour.RED]) == [
        "nan",
        "inf",
        "-inf",
        1.5,
        1,
    ]


def test_objects_that_refuse_to_be_read_do_not_raise() -> None:
    result = sanitize_context({"mute": Mute(), "hostile": Hostile(), "error": ValueError(Mute())})
    assert result["mute"] == f"{UNPRINTABLE} Mute"
    assert result["hostile"] == f"hostile with password={REDACTED}"
    assert result["error"]["type"] == "ValueError"


def test_other_objects_are_described_by_their_text() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert sanitize_context({"at": moment}) == {"at": str(moment)}


def test_the_context_itself_is_not_changed() -> None:
    context = {"password": "hunter2", "nested": {"note": "password=hunter2"}}
    sanitize_context(context)
    assert context == {"password": "hunter2", "nested": {"note": "password=hunter2"}}


@pytest.mark.parametrize(
    "shape",
    [
        lambda text: [[text] * 70] * 70,
        lambda text: [{f"{text} {n}": n for n in range(70)}] * 70,
        lambda text: {str(n): {str(m): text for m in range(70)} for n in range(70)},
    ],
    ids=["items", "keys", "values"],
)
def test_the_characters_read_are_bounded_whatever_holds_them(shape: Callable[[str], Any]) -> None:
    text = "the stage load took 17 s, all is well; " * (MAX_STRING_CHARS // 40)
    shown = json.dumps(sanitize_context(shape(text)))
    assert MAX_CHARS <= len(shown) < 1.5 * MAX_CHARS
    assert TRUNCATED in shown


def test_what_is_beyond_the_characters_that_are_read_is_counted() -> None:
    text = "x " * (MAX_STRING_CHARS // 2 - 1)
    read = -(-MAX_CHARS // len(text))
    assert sanitize_context([text] * 100)[read:] == [f"{TRUNCATED} {100 - read} more"]
    assert sanitize_context({str(n): text for n in range(100)})[TRUNCATED] == 100 - read


def test_a_context_of_common_size_is_read_to_its_end() -> None:
    context = {f"stage {n}": {"name": "load", "took": n, "note": "all is well " * 40} for n in range(150)}
    assert sanitize_context(context) == context


@pytest.mark.parametrize(
    ("person", "shown"),
    [
        ({"name": "Jane Doe", "dob": "1961-02-03"}, {}),
        ({"name": "jane", "patient_id": 4711, "ward": 3}, {"ward": 3}),
        ({"first": "jane", "last": "doe", "mrn": "A1"}, {}),
        ({"first": "Jane", "last": "O'Neill"}, {}),
        ({"name": "Jane Q. Doe", "age": 34}, {"age": 34}),
        ({"name": "Doe, Jane", "sex": "f"}, {"sex": "f"}),
        ({"city": "Springfield", "birth_date": "1961-02-03"}, {}),
        ({"patient": "jane doe", "name": "load"}, {"name": "load"}),
    ],
)
def test_whom_a_record_of_a_person_names_is_hidden(person: dict[str, Any], shown: dict[str, Any]) -> None:
    (told,) = sanitize_context([person])
    assert told == {**dict.fromkeys(person, REDACTED), **shown}


def test_a_name_below_a_patient_is_hidden() -> None:
    context = {"patients": [{"name": "jane", "visit": {"name": "jane again", "number": 3}}], "name": "load"}
    assert sanitize_context(context) == {
        "patients": [{"name": REDACTED, "visit": {"name": REDACTED, "number": 3}}],
        "name": "load",
    }


@pytest.mark.parametrize(
    "context",
    [
        {"name": "load"},
        {"name": "Bias Detection", "stage": "bias_detection"},
        {"name": "Daily Export", "owner": "team-a"},
        {"first": 1, "last": 20},
        {"first": "2026-01-01", "last": "2026-02-01"},
        {"name": "parity", "sex": 0.19, "age": 0.3},
        {"name": "cache", "age": 12},
        {"columns": {"name": {"dtype": "str"}, "age": {"dtype": "int"}}},
        {"members": [{"name": "node-1"}]},
        {"order": 2035550142, "at": 1767225600},
        {"patients": 442},
    ],
)
def test_a_name_of_no_person_stays(context: dict[str, Any]) -> None:
    assert sanitize_context(context) == context
