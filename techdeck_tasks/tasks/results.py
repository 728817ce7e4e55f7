"""Celery's Redis result stores, for which a result counts under its own task's id alone.

A sealed result can be read and made by key holders only, but whoever can write to Redis could put it under
another key. What is sealed names the task, the group or the chord that it is for; here that is compared with
the key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from kombu.exceptions import DecodeError
from kombu.utils.encoding import bytes_to_str

from techdeck_tasks.errors import EncryptionError

if TYPE_CHECKING:
    from celery import Celery

_FOREIGN: Final = {"status": states.PENDING, "result": None}
"""Found where another task's result lies. Compared by identity."""

_JOINED: ContextVar[str | None] = ContextVar("techdeck_joined_group", default=None)
"""The group whose part is being stored or whose parts are being read."""


def bind_results(app: Celery) -> None:
    """Let `app` keep its results, where they lie in Redis, in stores that compare."""
    app.loader.override_backends = {
        **app.loader.override_backends,
        "redis": f"{__name__}:BoundRedisBackend",
        "rediss": f"{__name__}:BoundRedisBackend",
        "sentinel": f"{__name__}:BoundSentinelBackend",
    }


class BoundRedisBackend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Celery's result store in Redis, without results in the place of others."""

    # -- of one task --------------------------------------------------------------------------------

    def get_task_meta(self, task_id: str, cache: bool = True) -> Any:
        """Return what is stored of a task.

        Raises:
            EncryptionError: it is another task's, or cannot be opened.
        """
        meta = super().get_task_meta(task_id, cache=cache)
        if meta is _FOREIGN:
            raise _misplaced("result", task_id)
        return meta

    def _get_task_meta_for(self, task_id: str) -> Any:
        # Asked before a result is stored, too: what somebody planted must not stand in its way.
        try:
            meta = super()._get_task_meta_for(task_id)
        except DecodeError:
            return _FOREIGN
        own = "task_id" not in meta and meta["status"] == states.PENDING
        return meta if own or _names(meta, task_id) else _FOREIGN

    def _mget_to_results(self, values: Any, keys: Any, *args: Any) -> Any:
        found = super()._mget_to_results(values, keys, *args)
        for task_id, meta in found.items():
            if not _names(meta, task_id):
                raise _misplaced("result", task_id)
        return found

    # -- of a group ---------------------------------------------------------------------------------

    def _restore_group(self, group_id: str) -> Any:
        meta = super()._restore_group(group_id)
        if meta and meta["result"].id != group_id:
            raise _misplaced("result of group", group_id)
        return meta

    # -- of a chord's members -----------------------------------------------------------------------

    def on_chord_part_return(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Store the result of a chord's member, and send the body after the last one."""
        with _joining(request.group):
            return super().on_chord_part_return(request, *args, **kwargs)

    def encode(self, data: Any) -> Any:
        """Seal `data`; of a chord's part the first field, which Celery does not use, names the chord."""
        group_id = _JOINED.get()
        if group_id is not None and isinstance(data, list):
            data = [group_id, *data[1:]]
        return super().encode(data)

    def _unpack_chord_result(self, tup: Any, decode: Any, *args: Any) -> Any:
        group_id = _JOINED.get()

        def decode_own(payload: Any) -> Any:
            part = decode(payload)
            if part[0] != group_id:
                raise _misplaced("part of chord", str(group_id))
            return part

        return super()._unpack_chord_result(tup, decode_own, *args)


class BoundSentinelBackend(BoundRedisBackend, SentinelBackend):  # type: ignore[misc]  # as above
    """The same behind Redis Sentinel."""


@contextmanager
def _joining(group_id: str | None) -> Iterator[None]:
    token = _JOINED.set(group_id)
    try:
        yield
    finally:
        _JOINED.reset(token)


def _names(meta: Any, task_id: Any) -> bool:
    return bool(meta.get("task_id") == bytes_to_str(task_id))


def _misplaced(what: str, its_id: str) -> EncryptionError:
    return EncryptionError(
        f"the stored {what} {its_id} was sealed for another, or was changed, at the store",
        encryption_type="AES-256-GCM",
    )
