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
from kombu.serialization import register
from kombu.utils import json

from techdeck_tasks.keyring import Cipher

SERIALIZER = "techdeck"
CONTENT_TYPE = "application/x-techdeck"
MASK = "[masked]"
"""Stands where Celery would show arguments or results; the same in Flower, `inspect` and logs."""

_AAD = b"techdeck-message-1"
_KIND = re.compile(r"[A-Za-z_]\w*")
_IDENTITY = re.compile(r"error_code='[A-Z_]+', error_id='[0-9a-f-]{36}'")
_FRAME = re.compile(r'^  File "[^"\n]*", line \d+, in \S+$', re.MULTILINE)


def register_serializer(cipher: Callable[[], Cipher]) -> None:
    """Make the encrypted serializer known to kombu, for the whole process.

    Args:
        cipher: gives the cipher when the first message needs it; the keys are read then and not before.
    """

    def encode(payload: Any) -> bytes:
        return cipher().seal(json.dumps(payload).encode(), _AAD)

    def decode(body: bytes | str) -> Any:
        raw = body if isinstance(body, bytes) else body.encode("latin-1")
        return json.loads(cipher().open(raw, _AAD))

    register(SERIALIZER, encode, decode, content_type=CONTENT_TYPE, content_encoding="binary")


def take_plain_commands(app: Celery) -> None:
    """Let `app` speak JSON with monitors and `inspect`, which hold no keys; arguments are masked there."""
    app.control.mailbox.serializer = "json"
    app.control.mailbox.accept = ["json"]


class MaskingAMQP(AMQP):  # type: ignore[misc]  # celery ships no types
    """Celery's message factory, without readable arguments in headers and sent events.

    What a sender gives as `argsrepr` and `kwargsrepr` is meant to be read, and stays.
    """

    def as_task_v2(self, *args: Any, **options: Any) -> Any:
        """Build the message of a task."""
        for name in ("argsrepr", "kwargsrepr"):
            if options.get(name) is None:
                options[name] = MASK
        return super().as_task_v2(*args, **options)


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
