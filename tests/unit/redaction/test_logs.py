"""Log records leave the process without secrets, and always leave it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from techdeck_tasks.redaction import REDACTED, RedactingFilter, redact_event
from techdeck_tasks.redaction.context import MAX_ITEMS, TRUNCATED

SECRET = "correct-horse-battery"
URL = f"postgres://app:{SECRET}@db/audit"


def fail(error: Exception) -> None:
    raise error


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> Iterator[logging.Logger]:
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("tests.redaction")
    logger.propagate = False
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def test_message_and_arguments_are_redacted(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("cannot reach %s, password=%s", URL, SECRET)
    assert (
        stream.getvalue() == f"WARNING cannot reach postgres://app:{REDACTED}@db/audit, password={REDACTED}\n"
    )


def test_a_mapping_as_argument_is_redacted(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("token=%(token)s", {"token": SECRET})
    assert SECRET not in stream.getvalue()


def test_an_exception_is_redacted_with_its_causes(logger: logging.Logger, stream: io.StringIO) -> None:
    try:
        try:
            fail(ValueError(f"password={SECRET}"))
        except ValueError as error:
            raise RuntimeError(URL) from error
    except RuntimeError:
        logger.exception("failed")
    output = stream.getvalue()
    assert SECRET not in output
    assert "ValueError" in output
    assert "RuntimeError" in output
    assert "direct cause" in output


def test_a_stack_is_redacted(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.warning("here", stack_info=True, extra={"password": SECRET})
    output = stream.getvalue()
    assert "Stack (most recent call last)" in output
    assert SECRET not in output


def test_extra_fields_are_redacted() -> None:
    record = logging.makeLogRecord(
        {"msg": "x", "password": SECRET, "url": URL, "rows": 3, "context": {"token": SECRET}}
    )
    RedactingFilter().filter(record)
    fields = vars(record)
    assert fields["password"] == REDACTED
    assert fields["url"] == f"postgres://app:{REDACTED}@db/audit"
    assert fields["rows"] == 3
    assert fields["context"] == {"token": REDACTED}


def test_a_benign_record_reads_the_same(logger: logging.Logger, stream: io.StringIO) -> None:
    logger.info("ignored below the level")
    logger.warning("stage %s took %.1f s", "load", 1.25)
    assert stream.getvalue() == "WARNING stage load took 1.2 s\n"


@pytest.mark.parametrize(
    ("msg", "args"), [("%d of %s", ("x",)), (Mute(), ()), ("%s", (Mute(),)), ("%z", (1,))]
)
def test_a_record_that_cannot_be_formatted_is_kept(msg: Any, args: tuple[Any, ...]) -> None:
    record = logging.makeLogRecord({"msg": msg, "args": args})
    assert RedactingFilter().filter(record)
    assert isinstance(record.getMessage(), str)


def test_a_field_that_refuses_to_be_read_does_not_lose_the_record() -> None:
    record = logging.makeLogRecord({"msg": "kept", "odd": Mute()})
    assert RedactingFilter().filter(record)
    assert record.getMessage() == "kept"


def test_structlog_events_are_redacted() -> None:
    stream = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[structlog.processors.add_log_level, redact_event, structlog.processors.JSONRenderer()],
    )
    try:
        fail(ValueError(f"password={SECRET}"))
    except ValueError:
        log.exception("failed", url=URL, password=SECRET, rows=3, context={"token": SECRET})
    event = json.loads(stream.getvalue())
    assert SECRET not in stream.getvalue()
    assert event["url"] == f"postgres://app:{REDACTED}@db/audit"
    assert (event["password"], event["rows"], event["level"]) == (REDACTED, 3, "error")
    assert event["exception"].endswith(f"ValueError: password={REDACTED}")


@pytest.mark.parametrize("shape", ["instance", "triple"])
def test_structlog_exceptions_are_redacted_in_either_shape(shape: str) -> None:
    try:
        fail(ValueError(f"password={SECRET}"))
    except ValueError as error:
        exc_info = error if shape == "instance" else sys.exc_info()
        event = redact_event(None, "error", {"event": "x", "exc_info": exc_info})
    assert event["exception"].endswith(f"password={REDACTED}")


def test_an_event_that_cannot_be_read_does_not_raise() -> None:
    assert "event" in redact_event(None, "info", {"event": Mute()})


def test_an_event_with_too_many_fields_shows_the_first_and_counts_the_others() -> None:
    event = redact_event(None, "info", {"event": "done", **{f"field{n}": n for n in range(100_000)}})
    assert event["event"] == "done"
    assert event[TRUNCATED] == 100_001 - MAX_ITEMS
    assert len(event) == MAX_ITEMS + 1


def test_a_record_with_too_many_fields_shows_the_first_and_hides_the_others() -> None:
    fields = {f"field{n}": "password=hunter2" for n in range(1000)}
    record = logging.makeLogRecord({"msg": "done", **fields})
    assert RedactingFilter().filter(record)
    shown = [getattr(record, name) for name in fields]
    assert shown == ["password=[REDACTED]"] * MAX_ITEMS + [TRUNCATED] * (1000 - MAX_ITEMS)


def test_long_fields_share_what_is_read() -> None:
    text = "all is well " * 50_000
    event = redact_event(None, "info", {f"field{n}": text for n in range(100)})
    assert event["field0"] == text
    assert event[TRUNCATED] == 98


class Unspeakable(ValueError):  # noqa: N818 - says what it is
    def __getattribute__(self, name: str) -> Any:
        raise GeneratorExit(name)

    __str__ = __getattribute__  # type: ignore[assignment]


def test_an_exception_that_cannot_be_looked_at_loses_no_record() -> None:
    error = Unspeakable()
    record = logging.makeLogRecord(
        {"msg": "lost %s", "args": ("load",), "exc_info": (Unspeakable, error, None)}
    )
    assert RedactingFilter().filter(record)
    assert record.msg == "lost load"
    assert "Unspeakable" in str(record.exc_text)
    record = logging.makeLogRecord({"msg": "lost %s", "args": (error,)})
    assert RedactingFilter().filter(record)
    assert "lost" in record.msg
    assert redact_event(None, "info", {"event": "lost", "exc_info": error})["event"] == "lost"
