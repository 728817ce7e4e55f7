"""Fallback tasks: how one stands in for a task that failed, and what it is told of the failure.

The fallback replaces the task in Celery's sense: it runs under the same id, and whatever follows the task
(chain, group, chord, links) follows the fallback. What it stands in for travels in a sealed header.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from celery import Task
from celery.canvas import Signature
from celery.result import allow_join_result

from techdeck_tasks.errors import EncryptionError, TechDeckError
from techdeck_tasks.keyring import Cipher
from techdeck_tasks.tasks.headers import header_of
from techdeck_tasks.tasks.services import TaskServices

PRIMARY_HEADER = "td_fallback_for"


def replace_with(task: Task, fallback: Task, error: TechDeckError, cipher: Cipher) -> Any:
    """Let `fallback` go on in the place of the running `task`, with the same arguments.

    Returns:
        The fallback's result, in eager mode.

    Raises:
        Ignore: Celery's way to say that another task answers.
    """
    sealed = cipher.seal(json.dumps(error.to_dict()).encode(), _aad(task.request.id))
    headers = {PRIMARY_HEADER: base64.b64encode(sealed).decode()}
    standin: Signature = fallback.signature(task.request.args, task.request.kwargs, headers=headers)
    # Eager, `replace` waits for the result inside a task.
    with allow_join_result():
        return task.replace(standin)


def primary_error(request: Any, services: TaskServices) -> TechDeckError | None:
    """Return the error that the running fallback stands in for; None where it is no fallback."""
    header = header_of(request, PRIMARY_HEADER)
    if not isinstance(header, str):
        return None
    try:
        document = json.loads(services.cipher.open(base64.b64decode(header), _aad(request.id)))
    except (EncryptionError, binascii.Error):
        # Whoever reaches the broker can write headers; a forged one marks nothing.
        return None
    return TechDeckError(document)


def _aad(task_id: str) -> bytes:
    return b"techdeck-fallback-1|" + task_id.encode()
