"""What classifying, redacting and answering an error costs, next to the specification's seven patterns.

Run: python benchmarks/classification.py
"""

from __future__ import annotations

import re
import timeit
from collections.abc import Callable
from typing import Any

import psycopg
import redis
import sqlalchemy.exc

from techdeck_tasks.errors import ServiceUnavailableError, as_techdeck_error, classify
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import sanitize_message

# The specification's `_sanitize_error_message`, word for word.
SEVEN = [
    r"password[=:]?\s*\S+",
    r"api[_-]?key[=:]?\s*\S+",
    r"token[=:]?\s*\S+",
    r"secret[=:]?\s*\S+",
    r"jdbc:.*?password=\S+",
    r"AKIA[0-9A-Z]{16}",
    r"eyJ[a-zA-Z0-9_-]*\.eyJ[a-zA-Z0-9_-]*\.[a-zA-Z0-9_-]*",
]

MESSAGE = (
    "could not load the partition 17 of dataset visits-2024 from https://ehr.example/export: "
    "connection reset after 3 of 12 chunks; password=hunter2 was refused for worker-03, trying again soon"
)


def seven_patterns(message: str) -> str:
    for pattern in SEVEN:
        message = re.sub(pattern, "[REDACTED]", message, flags=re.IGNORECASE)
    return message[:500] + "..." if len(message) > 500 else message


def microseconds(call: Callable[[], Any]) -> float:
    timer = timeit.Timer(call)
    rounds, _ = timer.autorange()
    return min(timer.repeat(5, rounds)) / rounds * 1e6


def main() -> None:
    ours = ServiceUnavailableError("down", service_name="ehr", retry_after=30)
    static = redis.ConnectionError("down")
    pattern = ValueError(MESSAGE)
    wrapped = sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.errors.DeadlockDetected("x"))
    group = ExceptionGroup("g", [static, pattern, ours])
    context = {"service": "ehr", "operation": "load"}

    def classify_and_redact(error: BaseException) -> str:
        classify(error, context)
        return sanitize_message(text_of(error))

    rows: list[tuple[str, Callable[[], Any]]] = [
        ("classify one of ours", lambda: classify(ours, context)),
        ("classify a mapped exception", lambda: classify(static, context)),
        ("classify by the message's words", lambda: classify(pattern, context)),
        ("classify SQLAlchemy by SQLSTATE", lambda: classify(wrapped, context)),
        ("classify a group of three", lambda: classify(group, context)),
        (f"the seven patterns, {len(MESSAGE)} characters", lambda: seven_patterns(MESSAGE)),
        (f"sanitize_message, {len(MESSAGE)} characters", lambda: sanitize_message(MESSAGE)),
        ("classify and redact, by words", lambda: classify_and_redact(pattern)),
        ("classify and redact, SQLAlchemy", lambda: classify_and_redact(wrapped)),
        ("convert to one of ours", lambda: as_techdeck_error(pattern, context)),
    ]
    for title, call in rows:
        print(f"{title:<42} {microseconds(call):8.2f} us")


if __name__ == "__main__":
    main()
