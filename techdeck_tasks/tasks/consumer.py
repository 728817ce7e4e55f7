"""A worker's consumer, for which messages that it cannot read are set aside and never its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis
from celery import signals
from celery.exceptions import NotRegistered
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.exceptions import DecodeError
from kombu.transport.redis import Transport as RedisTransport

from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.tasks.headers import malformed_header
from techdeck_tasks.tasks.messaging import is_bound
from techdeck_tasks.tasks.services import services_of
from techdeck_tasks.tasks.transport import is_outage, tolerant

logger = logging.getLogger(__name__)

_SHOWN_CHARS = 100

READ_TIMEOUT_S = 10
"""A worker that waits for messages bears with a slow Redis longer than a client that waits for `.delay()`."""


_TAKES_NO_WRITES = (redis.OutOfMemoryError, redis.ReadOnlyError)
"""A Redis that is full, or that became a replica: kombu knows these for no trouble of the connection."""


class QuarantiningConsumer(Consumer):  # type: ignore[misc]  # celery ships no types
    """Celery's consumer, for which a malformed message is neither fatal nor lost nor logged in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of these, too, the worker connects anew until Redis takes writes, instead of ending at the first
        # message that it acknowledges or gives back.
        self.connection_errors: tuple[type[Exception], ...]
        self.connection_errors += _TAKES_NO_WRITES

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """Connect for reading, through a transport that survives items which are no messages."""
        connection = self.app.connection_for_read(
            heartbeat=heartbeat, transport_options={"socket_timeout": READ_TIMEOUT_S}
        )
        transport = connection.get_transport_cls()
        if issubclass(transport, RedisTransport):
            # Not `transport_cls`: what is shown of the connection is made of its name.
            reading = tolerant(transport, self._on_malformed_item)
            connection.create_transport = lambda: reading(client=connection)
        return self.ensure_connected(connection)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Set aside a body that cannot be decoded: wrong key, plain text, changed."""
        self._set_aside(message, f"undecodable body: {type(exc).__name__}")

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Set aside what is no task message."""
        self._set_aside(message, "no task message")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Set aside a task message with impossible contents, or of a refused content type."""
        self._set_aside(message, f"invalid task message: {type(exc).__name__}")
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Set aside a task that this worker does not know, and fail it for whoever waits for it."""
        task_id, name = message.headers.get("id"), str(message.headers.get("task"))[:_SHOWN_CHARS]
        self._set_aside(message, f"unregistered task {name!r}")
        if isinstance(task_id, str):
            self.app.backend.mark_as_failure(task_id, NotRegistered(name))
            if self.event_dispatcher:
                self.event_dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({name!r})")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=task_id)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return Celery's handler, inside a net for what it does not expect."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            bad = malformed_header(message.headers)
            if bad is not None:
                # Found later, it would keep one of the worker's processes reserved for ever.
                self._set_aside(message, f"malformed header {bad!r}")
                return
            try:
                if is_bound(message):
                    handle(message)
                else:
                    self._set_aside(message, "body sealed for another task")
            except DecodeError as error:
                self.on_decode_error(message, error)
            except Exception as error:
                if isinstance(error, MemoryError) or is_outage(error, self.connection_errors):
                    raise
                # Headers are anybody's who reaches the broker.
                self._set_aside(message, f"malformed message: {type(error).__name__}")

        return on_task_received

    def _set_aside(self, message: Any, reason: str) -> None:
        if message.acknowledged:
            logger.error("message already set aside: %s", reason)
            return
        kept = self._keep(
            reason,
            message.body
            if isinstance(message.body, bytes)
            else str(message.body).encode("utf-8", "surrogateescape"),
            queue=str((message.delivery_info or {}).get("routing_key")),
            headers=message.headers,
            properties=message.properties,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
        )
        if kept:
            # Else it stays with the broker and comes back after the visibility timeout.
            message.ack_log_error(logger, self.connection_errors)

    def _on_malformed_item(self, queue: str, item: bytes, kind: str) -> bool:
        # A worker that is told to stop stops, also while an item has no place to go.
        state.maybe_shutdown()
        return self._keep(f"no message: {kind}", item, queue=queue)

    def _keep(self, reason: str, body: bytes, *, queue: str, **facts: Any) -> bool:
        logger.error("message quarantined: %s", reason)
        try:
            services_of(self.app).quarantine.add(reason, body, queue=queue, **facts)
        except (redis.RedisError, EncryptionError) as error:
            logger.critical("quarantine unavailable: %s", type(error).__name__)
            return False
        return True
