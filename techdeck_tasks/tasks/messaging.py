"""Messages and results that only key holders can read, and headers that tell nothing.

The serializer encrypts the whole body: arguments, keyword arguments, callbacks, chord and chain headers.
Celery also writes readable copies of arguments into headers and events; those are masked at the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu.serialization import prepare_accept_content, register, registry
from kombu.utils import json

from techdeck_tasks.errors import EncryptionError, ValidationError
from techdeck_tasks.keyring import Cipher

SERIALIZER = "techdeck"
CONTENT_TYPE = "application/x-techdeck"
MASK = "[masked]"
"""Stands where Celery would show arguments or results; the same in Flower, `inspect` and logs."""

_AAD = b"techdeck-message-1"
_BOUND = "td_sealed_for"
"""Beside the callbacks in a body: the task and the id it was sealed for."""
_KIND = re.compile(r"[A-Za-z_]\w*")
_IDENTITY = re.compile(r"error_code='[A-Z_]+', error_id='[0-9a-f-]{36}'")
_FRAME = re.compile(r'^  File "[^"\n]*", line \d+, in \S+$', re.MULTILINE)


_cipher: Callable[[], Cipher] | None = None


def register_serializer(cipher: Callable[[], Cipher]) -> Callable[[], Cipher] | None:
    """Make the encrypted serializer known to kombu, for the whole process.

    Args:
        cipher: gives the cipher when the first message needs it; the keys are read then and not before.

    Returns:
        What was registered before; None for nothing.
    """
    global _cipher
    before, _cipher = _cipher, cipher

    def encode(payload: Any) -> bytes:
        return cipher().seal(json.dumps(payload).encode(), _AAD)

    def decode(body: bytes | str) -> Any:
        raw = body if isinstance(body, bytes) else body.encode("latin-1")
        return json.loads(cipher().open(raw, _AAD))

    register(SERIALIZER, encode, decode, content_type=CONTENT_TYPE, content_encoding="binary")
    return before


def take_plain_commands(app: Celery) -> None:
    """Let `app` speak JSON with monitors and `inspect`, which hold no keys; arguments are masked there."""
    app.control.mailbox.serializer = "json"
    app.control.mailbox.accept = ["json"]


class MaskingAMQP(AMQP):  # type: ignore[misc]  # celery ships no types
    """Celery's message factory, without readable arguments in headers and sent events.

    What a sender gives as `argsrepr` and `kwargsrepr` is meant to be read, and stays. The body names the task
    it is for.
    """

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        """Build the message of a task."""
        for name in ("argsrepr", "kwargsrepr"):
            if options.get(name) is None:
                options[name] = MASK
        message = super().as_task_v2(*args, **options)
        message.body[2][_BOUND] = _binding(message.headers)
        return message

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()

        def send_acceptable(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
            self._refuse_unaccepted(name, options.get("serializer"))
            return send(producer, name, message, *args, **options)

        return send_acceptable

    def _refuse_unaccepted(self, task_name: str, serializer: str | None) -> None:
        """Refuse what would lie in Redis in the clear, for workers to refuse.

        Raises:
            ValidationError: the application's workers accept no message of `serializer`.
        """
        if serializer is None or serializer == self.app.conf.task_serializer:
            return
        content_type = registry.name_to_type.get(serializer, serializer)
        if content_type not in prepare_accept_content(self.app.conf.accept_content):
            raise ValidationError(
                f"{task_name} asks for the serializer {serializer!r}, which is not in accept_content: no "
                "worker would take the message; leave the option out",
                field="serializer",
            )


def is_bound(message: Any) -> bool:
    """Whether a message's sealed body was sealed for the task and id in its headers; others are not asked.

    Headers are readable and writable for whoever reaches the broker: without this, one task's body could be
    delivered to another task.

    Raises:
        DecodeError: the body cannot be opened.
    """
    if message.content_type != CONTENT_TYPE or "task" not in message.headers:
        return True
    # Decoded once: the request takes it from the message.
    return bool(message.payload[2].get(_BOUND) == _binding(message.headers))


def bind_body(cipher: Cipher, body: bytes, content_type: str | None, headers: Mapping[str, Any]) -> bytes:
    """Return `body` sealed for the task in `headers`, which it may have been without naming it.

    Raises:
        ValidationError: it was sealed for another task.
    """
    if content_type != CONTENT_TYPE or headers.get("compression"):
        return body
    try:
        payload = json.loads(cipher.open(body, _AAD))
        bound = payload[2].setdefault(_BOUND, _binding(headers))
    except (EncryptionError, ValueError, LookupError, TypeError, AttributeError):
        # Not readable here; perhaps where it is sent.
        return body
    if bound != _binding(headers):
        raise ValidationError("the body was sealed for another task; drop the message", field="message_id")
    return cipher.seal(json.dumps(payload).encode(), _AAD)


def _binding(headers: Mapping[str, Any]) -> list[Any]:
    return [headers.get("task"), headers.get("id")]


def mask_event(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task event's fields as monitors may see them; events cross the broker in the clear.

    Of an error its type is left, of one of this package the code and the id, and of a traceback its places:
    what was said may quote data that no pattern knows.
    """
    shown = dict(fields)
    if isinstance(shown.get("exception"), str):
        shown["exception"] = _shown_exception(shown["exception"])
    if isinstance(shown.get("traceback"), str):
        shown["traceback"] = "\n".join(_FRAME.findall(shown["traceback"]))
    return shown


def _shown_exception(text: str) -> str:
    kind = _KIND.match(text)
    identity = _IDENTITY.search(text)
    return f"{kind[0] if kind else 'Exception'}({identity[0] if identity else MASK})"
