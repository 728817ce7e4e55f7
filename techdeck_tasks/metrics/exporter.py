"""Serves the numbers to Prometheus over HTTP, on loopback unless told otherwise."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from techdeck_tasks.errors import ValidationError

logger = logging.getLogger(__name__)

_MOST_PORTS = 1 << 16


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 host is in brackets.

    Raises:
        ValidationError: it is malformed.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not int(port) < _MOST_PORTS:
        raise ValidationError(
            f"metrics_address {address!r} is malformed; use HOST:PORT, such as 127.0.0.1:9464",
            field="metrics_address",
        )
    return host.strip("[]"), int(port)


class MetricsServer:
    """Serves ``/metrics`` in a thread until `stop`, or until the process ends.

    There is no login: anything but loopback belongs behind a firewall.

    Args:
        collector: what is shown.
        address: ``HOST:PORT``; port 0 takes a free one.

    Raises:
        ValidationError: the address is malformed, or taken.
    """

    def __init__(self, collector: Collector, address: str) -> None:
        host, port = parse_address(address)
        registry = CollectorRegistry()
        registry.register(collector)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as failure:
            raise ValidationError(
                f"metrics cannot be served at {address}: {failure.strerror}; choose another metrics_address",
                field="metrics_address",
            ) from None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_beside(collector: Collector, address: str) -> None:
    """Serve for as long as this process lives; where the address is taken, say so and go on.

    The numbers are those of all processes: of several workers on one machine, one that serves is enough.
    """
    try:
        MetricsServer(collector, address)
    except ValidationError as failure:
        logger.warning("%s", failure)
