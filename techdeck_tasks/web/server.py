"""Serving the web application with uvicorn."""

from __future__ import annotations

import asyncio

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_TIMEOUT_S = 5.0
"""So long a client may take to send a request's headers, on a new connection or a kept one; and the rest of a
body that was answered before it was all there."""

MOST_CONNECTIONS = 500
SHUTDOWN_S = 10


class ImpatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, but a client that never finishes its headers is hung up on.

    So is one that goes on sending a body after its answer. uvicorn itself waits for ever: a few hundred such
    clients would hold every connection.
    """

    _hang_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once the headers are there."""
        super().data_received(data)
        self._wait_for_headers()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait_for_headers(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        # An answer that did not wait for the body is followed by what is left of it: no limit of a request
        # holds for that any more. Hanging up at once could take the answer back.
        left_over = self.conn.their_state is h11.SEND_BODY and not answering
        if self.transport.is_closing() or not (left_over or self.conn.their_state is h11.IDLE):
            self._stop_waiting()
        elif self._hang_up is None:
            self._hang_up = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None


def make_server(app: FastAPI, *, host: str, port: int) -> uvicorn.Server:
    """Return a server that is not started yet; port 0 is a free one."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=ImpatientProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
