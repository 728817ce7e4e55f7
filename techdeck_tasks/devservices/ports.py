"""Ports on the loopback interface."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from techdeck_tasks.devservices.errors import DevServiceError

LOOPBACK = "127.0.0.1"
HIGHEST_PORT = 65535

PortChooser = Callable[[], int]
"""Returns a port to listen on, another one at each call."""


def free_port() -> int:
    """Return a port nobody listens on now. Another process may take it first: the caller tries again."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free(port: int, service: str) -> None:
    """Check that `port` (1 to 65535) can be listened on.

    Raises:
        DevServiceError: it is out of bounds, reserved or taken.
    """
    if not 1 <= port <= HIGHEST_PORT:
        raise DevServiceError(f"{service}: port {port} is outside 1 to {HIGHEST_PORT}; choose one inside")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection of the previous run in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_taken(port, service) from None
            raise DevServiceError(
                f"{service}: port {port} on {LOOPBACK} is refused by the system ({error.strerror}); "
                "choose a port above 1023, or give none to get a free one"
            ) from None


def port_taken(port: int, service: str) -> DevServiceError:
    """Return the error for a `port` that another process listens on."""
    return DevServiceError(
        f"{service}: port {port} on {LOOPBACK} is taken by another process; stop that process "
        f"(`lsof -i :{port}` names it), choose another port, or give none to get a free one"
    )
