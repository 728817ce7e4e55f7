"""Reading Redis queues, for workers that must survive what others put there.

kombu parses an item before anybody has bookkept it. What is no JSON, or no message, raises in the middle of
the worker's event loop and ends the worker; and the item is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

MalformedHandler = Callable[[str, bytes, str], bool]
"""Is given the queue, the item as it was in the list, and the name of what parsing it raised; returns whether
the item is kept."""

PAUSE_S = 1.0
"""Between two tries to keep an item."""


def is_outage(error: BaseException, connection_errors: tuple[type[BaseException], ...]) -> bool:
    """Whether `error` is of the connection; kombu counts every KeyError there, a malformed message's, too."""
    return isinstance(error, connection_errors) and not isinstance(error, KeyError)


def tolerant(transport: type[redis.Transport], on_malformed: MalformedHandler) -> type[redis.Transport]:
    """Return `transport` (Redis, Sentinel), reading on after an item that is no message."""

    class TolerantChannel(transport.Channel):  # type: ignore[misc, name-defined]  # kombu ships no types
        """Remembers what was popped until it is delivered."""

        popped: Any = None

        def _create_client(self, asynchronous: bool = False) -> Any:
            client = super()._create_client(asynchronous)
            parse = client.parse_response

            def parse_response(connection: Any, command_name: str, **options: Any) -> Any:
                reply = parse(connection, command_name, **options)
                if command_name == "BRPOP":
                    self.popped = reply
                return reply

            client.parse_response = parse_response
            return client

        def _connparams(self, asynchronous: bool = False) -> Any:
            _require_open(self.connection)
            return super()._connparams(asynchronous)

        def _brpop_read(self, **options: Any) -> Any:
            self.popped = None
            try:
                return super()._brpop_read(**options)
            except Exception as error:
                if not self.popped or isinstance(error, Empty) or is_outage(error, self.connection_errors):
                    raise
                source, item = self.popped
                self._place(source, item, type(error).__name__)
                return True

        def _place(self, source: bytes, item: bytes, kind: str) -> None:
            """Have the item kept, or put it back behind the others; the worker waits until one of them works.

            An item that was popped is nowhere else.
            """
            # Queues of a priority have it behind a separator.
            queue = source.decode("utf-8", "replace").rsplit(self.sep, 1)[0]
            placed = on_malformed(queue, item, kind)
            while not placed:
                with suppress(RedisError):
                    placed = bool(self.client.lpush(source, item))
                time.sleep(PAUSE_S)
                placed = placed or on_malformed(queue, item, kind)

    class TolerantTransport(transport):  # type: ignore[misc, valid-type]  # as above
        """Its channels are tolerant."""

        Channel = TolerantChannel

    return TolerantTransport


def _require_open(connection: Any) -> None:
    # A channel that is closed after its connection was, with messages in hand, still wants to give them back.
    # kombu fails at what the connection has forgotten by then, with an error that ends the worker.
    if connection.client is None:
        raise RedisConnectionError("the connection to Redis is closed already")
