"""A file server on the loopback interface that is down for maintenance when it is first asked."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


class Clinic:
    """Serves one file over HTTP; the first requests are answered 503 with a Retry-After of 1 s.

    Args:
        file: what is served.
        outages: how many requests are refused first.
    """

    def __init__(self, file: Path, outages: int) -> None:
        self._file = file
        self._outages = outages
        self._lock = threading.Lock()
        clinic = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                body = self._answer()
                if body:
                    self.wfile.write(body)

            def _answer(self) -> bytes:
                if clinic.is_down():
                    self.send_response(503)
                    self.send_header("Retry-After", "1")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return b""
                body = clinic._file.read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", "text/csv")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="clinic", daemon=True)

    @property
    def url(self) -> str:
        """Where the file is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self._file.name}"

    def is_down(self) -> bool:
        """Tell whether this request is one of those refused."""
        with self._lock:
            self._outages -= 1
            return self._outages >= 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
