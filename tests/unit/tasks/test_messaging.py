"""Encrypted bodies and masked headers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu import serialization
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.tasks.headers import header_of, malformed_header
from techdeck_tasks.tasks.messaging import CONTENT_TYPE, MASK, SERIALIZER, mask_event, register_serializer

OLD, NEW = b"o" * 32, b"n" * 32


def dump(payload: Any) -> Any:
    return serialization.dumps(payload, SERIALIZER)[2]


def load(body: Any) -> Any:
    return serialization.loads(body, CONTENT_TYPE, "binary", accept={CONTENT_TYPE})


def ring(active: str, **keys: bytes) -> None:
    register_serializer(lambda: Cipher(KeySet(active, keys)))


def test_a_body_comes_back_and_is_not_readable_on_the_way() -> None:
    ring("new", new=NEW)
    body = dump([["canary"], {"patient": "canary"}])
    assert b"canary" not in body
    assert load(body) == [["canary"], {"patient": "canary"}]


def test_keys_are_rotated_without_losing_what_is_under_way() -> None:
    ring("old", old=OLD)
    under_way = dump({"a": 1})
    ring("new", old=OLD, new=NEW)
    assert load(under_way) == {"a": 1}
    sealed_since = dump({"b": 2})
    ring("new", new=NEW)
    assert load(sealed_since) == {"b": 2}
    with pytest.raises(DecodeError):
        load(under_way)


def test_plain_text_and_other_content_types_are_refused() -> None:
    ring("new", new=NEW)
    with pytest.raises(DecodeError):
        load(b'{"a": 1}')
    with pytest.raises(ContentDisallowed):
        serialization.loads(b"[]", "application/json", "utf-8", accept={CONTENT_TYPE})


def test_what_is_no_json_cannot_be_sent() -> None:
    ring("new", new=NEW)
    with pytest.raises(EncodeError):
        dump(object())


def test_headers_and_the_sent_event_show_a_mask_for_arguments(app: Celery) -> None:
    message = app.amqp.as_task_v2(
        "id", "name", args=("canary",), kwargs={"k": "canary"}, create_sent_event=True
    )
    assert message.headers["argsrepr"] == message.headers["kwargsrepr"] == MASK
    assert message.sent_event["args"] == message.sent_event["kwargs"] == MASK


def test_a_text_that_the_sender_gave_for_readers_stays(app: Celery) -> None:
    message = app.amqp.as_task_v2("id", "name", args=("canary",), argsrepr="order 17")
    assert message.headers["argsrepr"] == "order 17"


def test_an_event_tells_an_errors_type_and_places() -> None:
    shown = mask_event(
        {
            "exception": "ValueError('canary')",
            "traceback": 'Traceback:\n  File "a.py", line 3, in load\n    int(canary)\nValueError: canary',
            "runtime": 1.5,
        }
    )
    assert shown == {
        "exception": f"ValueError({MASK})",
        "traceback": '  File "a.py", line 3, in load',
        "runtime": 1.5,
    }


def test_an_event_tells_the_code_and_id_of_an_error_of_ours() -> None:
    identity = "error_code='TIMEOUT_ERROR', error_id='00000000-0000-0000-0000-000000000000'"
    assert mask_event({"exception": f"TimeoutError('canary', {identity})"}) == {
        "exception": f"TimeoutError({identity})"
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", None),
        ("retries", "3"),
        ("retries", -1),
        ("timelimit", [1]),
        ("timelimit", ["a", "b"]),
        ("stamped_headers", [[]]),
        ("stamps", []),
        ("task", 5),
    ],
)
def test_a_header_that_celery_would_stumble_over_is_named(name: str, value: Any) -> None:
    good = {"task": "t", "id": "i", "retries": 0, "timelimit": [None, 5], "stamps": {}, "root_id": None}
    assert malformed_header(good) is None
    assert malformed_header(good | {name: value}) == name


def test_headers_of_other_messages_are_left_to_celery() -> None:
    assert malformed_header({"id": 5}) is None
    assert malformed_header(None) is None


def test_a_custom_header_is_found_whatever_the_headers_are() -> None:
    assert header_of(SimpleNamespace(headers={"a": 1}), "a") == 1
    assert header_of(SimpleNamespace(headers=None), "a") is None
    assert header_of(SimpleNamespace(headers=5), "a") is None
