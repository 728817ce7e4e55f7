"""Every rule keeps what its own examples promise."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from techdeck_tasks.redaction import REDACTED, redact, sanitize_message
from techdeck_tasks.redaction.catalogue import RULES
from techdeck_tasks.redaction.rule import Rule, Subject

MARKED = re.compile(r"«(.*?)»", re.DOTALL)
LEAKS = [
    pytest.param(rule, example, id=f"{rule.name}-{n}")
    for rule in RULES
    for n, example in enumerate(rule.leaks)
]
BENIGN = [pytest.param(text, id=f"{rule.name}-{n}") for rule in RULES for n, text in enumerate(rule.benign)]


@pytest.mark.parametrize(("rule", "example"), LEAKS)
def test_an_example_loses_its_marked_part_and_nothing_else(rule: Rule, example: str) -> None:
    assert redact(MARKED.sub(r"\1", example)) == MARKED.sub(REDACTED, example)


@pytest.mark.parametrize(("rule", "example"), LEAKS)
def test_a_rule_finds_its_examples_by_itself(rule: Rule, example: str) -> None:
    text = MARKED.sub(r"\1", example)
    assert list(rule.find(Subject(text))), f"{rule.name} leaves its own example to other rules"


@pytest.mark.parametrize("text", BENIGN)
def test_a_near_miss_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_each_rule_has_its_own_name_a_reason_an_example_and_a_near_miss() -> None:
    assert [name for name, count in Counter(rule.name for rule in RULES).items() if count > 1] == []
    for rule in RULES:
        assert rule.reason.endswith(".")
        assert rule.leaks, rule.name
        assert rule.benign, rule.name
        assert all(MARKED.search(example) for example in rule.leaks), rule.name
        assert rule.digits in {0, 1, 3, 6}
        assert all(hint == hint.lower() for hint in rule.hints)
        assert all(word.isalpha() and word == word.lower() for word in rule.words)


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "password hunter2",
        "api_key: 12ab34cd56",
        "apikey=12ab34cd56",
        "token=abc.def",
        "secret: s3cr3t",
        "jdbc:postgresql://db/audit?user=app&password=hunter2",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtaWEifQ.c2lnbmF0dXJl",
    ],
)
def test_the_seven_patterns_of_the_specification_are_covered(text: str) -> None:
    secret = re.split(r"[=: ]", text)[-1]
    assert secret not in sanitize_message(text)


@pytest.mark.parametrize(
    "text",
    [
        "StopIteration",
        "ValueError: invalid literal for int() with base 10: 'abc'",
        "ImportError: cannot import name 'frobnicate' from 'sources'",
        "TypeError: 'NoneType' object is not subscriptable",
        "UnicodeDecodeError: 'cp1252' codec can't decode byte 0x9d in position 71",
        "[2023-08-02 06:11:54,120: INFO/MainProcess] Task load[c3d81f60-2b9a-4f7e-b1d5-90e4a7c2386d]",
        "2023-08-02T06:11:54.120457318Z intake[worker.7]: soft limit of 240s reached",
        "ConnectionError: Error 111 connecting to 127.0.0.1:6379. Connection refused.",
        'File "/srv/app/.venv/lib/python3.11/site-packages/celery/app/trace.py", line 453, in trace_task',
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 differs",
        "commit 3f1c9a7be04d52861e7fb09c4d8a6235e1907bfc built as v2.11.0rc1",
        "HTTPConnectionPool(host='10.0.0.7', port=8080): gave up on /v1?page=2",
        'psycopg.errors.UndefinedColumn: relation "secrets" is unknown',
        "IntegrityError: CHECK failed: accounts.password",
        "AuthenticationError: wrong password for user 'app'",
        "429 Too Many Requests, retry after 30 seconds (year 2024)",
        '    raise ValueError(f"cannot read {path}") from error',
        "naïve café: ошибка соединения 你好",
    ],
)
def test_ordinary_messages_come_back_unchanged(text: str) -> None:
    assert sanitize_message(text) == text
    assert redact(text) == text
