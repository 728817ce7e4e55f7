"""What holds of redaction for any text, any secret and any context."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from techdeck_tasks.redaction import MAX_MESSAGE_CHARS, redact, sanitize_context, sanitize_message
from techdeck_tasks.redaction.catalogue import RULES
from techdeck_tasks.redaction.rule import Subject

# Fragments that rules react to, so that random texts reach them.
FRAGMENTS = (
    "password", "token", "key", "secret", "=", ": ", " ", '"', "'", "\\", "\n", "[REDACTED]", "[parameters: ",
    "(", ")", "[", "]", "{", "}", "<", ">", "Authorization: ", "Bearer ", "-----BEGIN X-----",
    "-----END X-----",
    "://", "@", "a", "b1", "AKIA", "1", "2024-01-01", "078-05-1120", "eyJ", ".", "/", "%3D", "%22",
    "Cookie: ", "input_value=", "DETAIL: Key (a)=(", "--token", "-u ", "\ud800", "İ", "0x", "$2b$", "::",
    "+1", "KeyError: ", "...", "patient name",
    "DOB ", "mrn ", "Zz9" * 9, ",", ";", "&", "?sig=", "[SQL: ", "is ", "8.8.8.8",
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=()), max_size=300)
fragments = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=60).map("".join)
secrets = st.text(string.ascii_letters + string.digits, min_size=24, max_size=40).filter(
    lambda value: sum(map(str.isdigit, value)) >= 4 and value != value.lower() and value != value.upper()
)
WRAPPERS = (
    "password={}", "token: {}", '{{"api_key": "{}"}}', "{{'client_secret': '{}'}}", "https://u:{}@host/x",
    "https://host/x?access_token={}&page=2", "Authorization: Bearer {}", "Cookie: id={}", "--token {}",
    "curl -u u:{} x", "<password>{}</password>", "DETAIL:  Failing row contains (1, {}).",
    "[parameters: ('{}',)]", "export X_SECRET={}", "[type=x, input_value='{}', input_type=str]",
    "Incorrect API key provided: {}.", 'set("AUTH_TOKEN", "{}")',
)  # fmt: skip
surroundings = st.text(string.ascii_letters + " ,;\n", max_size=40)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=40)
contexts = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.binary(max_size=8) | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.text(max_size=5), max_size=3)
    ),
    max_leaves=20,
)


@given(texts | fragments)
@example("password is a" * 300)
@settings(max_examples=300)
def test_a_message_is_bounded_and_stable(text: str) -> None:
    result = sanitize_message(text)
    assert len(result) <= MAX_MESSAGE_CHARS
    assert sanitize_message(result) == result


@given(texts | fragments)
@settings(max_examples=200)
def test_redacted_text_is_stable(text: str) -> None:
    result = redact(text)
    assert redact(result) == result


@given(texts | fragments)
@settings(max_examples=150)
def test_no_rule_raises_and_each_points_into_the_text(text: str) -> None:
    subject = Subject(text)
    for rule in RULES:
        for start, end in rule.find(subject):
            assert 0 <= start <= end <= len(text), rule.name


@given(st.lists(fragments, min_size=30, max_size=60).map(" ".join))
@settings(max_examples=30)
def test_a_long_message_is_bounded_and_stable(text: str) -> None:
    result = sanitize_message(text)
    assert len(result) <= MAX_MESSAGE_CHARS
    assert sanitize_message(result) == result


@given(st.sampled_from(WRAPPERS), secrets, surroundings, surroundings)
@settings(max_examples=300)
def test_no_planted_secret_survives_in_any_wrapper(
    wrapper: str, secret: str, before: str, after: str
) -> None:
    text = f"{before} {wrapper.format(secret)} {after}"
    assert secret not in sanitize_message(text)
    assert secret not in redact(text)


@given(st.sampled_from(WRAPPERS), secrets, st.integers(0, 4))
@settings(max_examples=150)
def test_no_planted_secret_survives_in_nested_quoting(wrapper: str, secret: str, depth: int) -> None:
    text = wrapper.format(secret)
    for _ in range(depth):
        text = json.dumps({"message": text})
    assert secret not in redact(text)
    assert secret not in redact(repr(text))


@given(contexts)
@settings(max_examples=150)
def test_any_context_becomes_json(context: Any) -> None:
    json.dumps(sanitize_context(context), allow_nan=False)


@given(contexts, st.sampled_from(WRAPPERS), secrets)
@settings(max_examples=100)
def test_no_planted_secret_survives_in_a_context(context: Any, wrapper: str, secret: str) -> None:
    planted = [
        context,
        {"note": wrapper.format(secret)},
        (wrapper.format(secret).encode(),),
        {"password": [secret]},
    ]
    assert secret not in json.dumps(sanitize_context(planted))
