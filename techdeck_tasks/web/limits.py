"""What one request may cost: how often, how large, how long. Pure ASGI, around the whole application."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from techdeck_tasks.errors import TimeoutError  # noqa: A004 - the specification's name

UNLIMITED = frozenset({"/api/v1/audit/verify", "/audit/verify"})
"""Takes as long as the log is large."""

UNCOUNTED = ("/static/", "/healthz")


class RequestLimits:
    """Refuses what comes too often (429), is too large (413) or too slow to arrive (408) or answer (504).

    Args:
        app: what is protected.
        wait_for: counts a request and returns the seconds it has to wait, 0 for none; may block.
        max_body_bytes: tells how large the body of a request may be, declared or not.
        timeout_s: for the whole body to arrive, and for the answer to begin.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        wait_for: Callable[[HTTPConnection], int],
        max_body_bytes: Callable[[HTTPConnection], int],
        timeout_s: float,
    ) -> None:
        self._app = app
        self._wait_for = wait_for
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise what refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        path = connection.url.path
        if not path.startswith(UNCOUNTED):
            wait_s = await run_in_threadpool(self._wait_for, connection)
            if wait_s:
                raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": str(wait_s)})
        if "content-length" in connection.headers and "transfer-encoding" in connection.headers:
            # A proxy that believes the length takes the rest for another request (RFC 9112, 6.1 and 11.2).
            raise HTTPException(HTTPStatus.BAD_REQUEST, headers={"Connection": "close"})
        most = self._max_body_bytes(connection)
        declared = connection.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        bounded = self._bounded(receive, most)
        if path in UNLIMITED:
            await self._app(scope, bounded, send)
        else:
            await self._timed(scope, bounded, send)

    def _bounded(self, receive: Receive, max_body_bytes: int) -> Receive:
        deadline = time.monotonic() + self._timeout_s
        received, complete = 0, False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # waits for the end of the connection, however long that takes
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except builtins.TimeoutError:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > max_body_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        return bounded

    async def _timed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in time even where a thread hangs, which cannot be cancelled: it is left behind."""
        begun, over = asyncio.Event(), False

        async def watched(message: Message) -> None:
            begun.set()
            if not over:
                await send(message)

        answering = asyncio.ensure_future(self._app(scope, receive, watched))
        beginning = asyncio.ensure_future(begun.wait())
        try:
            # The body's own time comes first, so a slow sender is told that it was slow.
            await asyncio.wait(
                {answering, beginning},
                timeout=2 * self._timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if begun.is_set() or answering.done():
                await answering
                return
        finally:
            beginning.cancel()
            if not answering.done():
                over = True
                answering.add_done_callback(_let_go)
                answering.cancel()
        raise TimeoutError(
            f"the answer took longer than {self._timeout_s:g} s; ask for less, or try again later",
            operation="request",
            timeout_seconds=self._timeout_s,
        )


def _let_go(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()  # nobody is left to hear of it
