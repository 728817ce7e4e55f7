"""Where servers may send a reader to: nowhere that the source itself might not be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from techdeck_tasks.errors import AuthorizationError
from techdeck_tasks.pipeline.data.boundary import Boundary

if TYPE_CHECKING:
    import aiohttp


class Redirects:
    """Checks the redirects of an HTTP session before they are followed.

    Args:
        boundary: where data may lie.
        field: what is said to have led there.
    """

    def __init__(self, boundary: Boundary, field: str = "source.url") -> None:
        self._boundary = boundary
        self._field = field
        self._refused: AuthorizationError | None = None

    def traced(self) -> aiohttp.TraceConfig:
        """Return what makes a session ask here."""
        import aiohttp  # noqa: PLC0415 - slow to import, and only http(s) needs it

        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(self._check)
        return trace

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raise what was refused in the block, whatever the file system has made of it.

        Raises:
            AuthorizationError: a server redirected to a place that may not be used; the text names it.
        """
        try:
            yield
        except Exception:
            if self._refused is not None:
                raise self._refused from None
            raise
        if self._refused is not None:  # the file system took it for an answer
            raise self._refused

    async def _check(
        self, _session: aiohttp.ClientSession, _context: Any, redirect: aiohttp.TraceRequestRedirectParams
    ) -> None:
        from yarl import URL  # noqa: PLC0415 - comes with aiohttp

        # As aiohttp finds the place.
        place = redirect.response.headers.get("Location") or redirect.response.headers.get("URI") or ""
        try:
            self._boundary.check([(f"{self._field} is redirected", str(redirect.url.join(URL(place))))])
        except AuthorizationError as error:
            self._refused = error
            raise
