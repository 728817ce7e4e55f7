"""How many requests a caller may make: counted in Redis over all web processes, one round trip a request."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network, ip_address

from redis import Redis
from starlette.requests import HTTPConnection

from techdeck_tasks.storage.redis_client import REDIS_FAILURES, Script

logger = logging.getLogger(__name__)

WINDOW_MS = 60_000
ADDRESS_SHARE = 5
"""An address may make so many times the requests of one token: several people may sit behind it."""

LOGINS_PER_MINUTE = 10
REFUSALS_PER_MINUTE = 30

_RATE = Script.load("techdeck_tasks.web", "lua/rate.lua")
_PREFIX = "td:web:rate:{web}:"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a request counts against, and how many a minute are allowed."""

    name: str
    limit: int


def subjects_of(connection: HTTPConnection, session_cookie: str, limit: int) -> list[Subject]:
    """Return whom a request counts against: its address, the credential it shows, and logins apart.

    The address too: credentials can be made up, and each would have a count of its own.
    """
    address = _address(connection)
    subjects = [Subject(f"address:{address}", limit * ADDRESS_SHARE)]
    shown = connection.headers.get("authorization") or connection.cookies.get(session_cookie)
    if shown:
        digest = hashlib.sha256(shown.encode("utf-8", "replace")).hexdigest()
        subjects.append(Subject(f"credential:{digest}", limit))
    if connection.scope.get("method") == "POST" and connection.url.path == "/login":
        subjects.append(Subject(f"login:{address}", LOGINS_PER_MINUTE))
    return subjects


def refusals_of(connection: HTTPConnection) -> Subject:
    """Return what a request without a valid token counts against, beside the rest."""
    return Subject(f"refused:{_address(connection)}", REFUSALS_PER_MINUTE)


def _address(connection: HTTPConnection) -> str:
    host = connection.client.host if connection.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv4Address):
        return str(address)
    # Whoever has one IPv6 address has the 64 bits below its network too.
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))


def seconds_to_wait(client: Redis, subjects: list[Subject]) -> int:
    """Count a request; return 0 where it may go on, else the seconds until the next may.

    While Redis is away it goes on: what needs Redis says so itself, and the rest must stay usable.
    """
    keys = [_PREFIX + subject.name for subject in subjects]
    try:
        wait_ms = int(_RATE(client, keys, [WINDOW_MS, *(subject.limit for subject in subjects)]))
    except REDIS_FAILURES as failure:
        logger.warning("requests are not counted: redis does not answer (%s)", type(failure).__name__)
        return 0
    return math.ceil(wait_ms / 1000)
