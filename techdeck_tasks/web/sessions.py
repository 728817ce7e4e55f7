"""Sessions of the dashboard: a random cookie, what it stands for in Redis under the cookie's digest."""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from redis import Redis

from techdeck_tasks.clock import Clock

IDLE = timedelta(minutes=30)
"""A session that nobody uses ends after this: automatic logoff, 45 CFR 164.312(a)(2)(iii)."""

LONGEST = timedelta(hours=10)
"""A working day; after it a person logs in again."""

_PREFIX = "td:web:session:"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One login.

    Attributes:
        token_id: the token it was opened with; asked for again with each request, so that revoking works.
        csrf: what every form of this session carries.
        secret: the cookie.
        until: when it ends however busy it is, aware UTC.
    """

    token_id: uuid.UUID
    csrf: str = field(repr=False)
    secret: str = field(repr=False)
    until: datetime


class SessionStore:
    """Opens, finds and closes sessions; each call is one round trip. Redis errors pass through."""

    def __init__(self, client: Redis, clock: Clock) -> None:
        self._redis = client
        self._clock = clock

    def open(self, token_id: uuid.UUID) -> Session:
        """Begin a session."""
        session = Session(
            token_id=token_id,
            csrf=secrets.token_urlsafe(_SECRET_BYTES),
            secret=secrets.token_urlsafe(_SECRET_BYTES),
            until=self._clock.now() + LONGEST,
        )
        document = {"token_id": str(token_id), "csrf": session.csrf, "until": session.until.isoformat()}
        self._redis.set(_key(session.secret), json.dumps(document), ex=IDLE)
        return session

    def find(self, secret: str, *, keep_alive: bool) -> Session | None:
        """Return the session of a cookie, None where it ended. `keep_alive` starts its idle time again."""
        key = _key(secret)
        raw = cast("bytes | None", self._redis.getex(key, ex=IDLE) if keep_alive else self._redis.get(key))
        if raw is None:
            return None
        document = json.loads(raw)
        until = datetime.fromisoformat(document["until"])
        if until <= self._clock.now():
            return None
        return Session(uuid.UUID(document["token_id"]), document["csrf"], secret, until)

    def close(self, secret: str) -> None:
        """End a session."""
        self._redis.delete(_key(secret))


def _key(secret: str) -> str:
    return _PREFIX + hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
