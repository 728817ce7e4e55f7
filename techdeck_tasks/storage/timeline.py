"""Ids in a Redis sorted set by time, read from the newest on, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from redis import Redis

Place = tuple[datetime, str]
"""Where an id is: its moment, and itself, which decides between ids of the same moment."""


def places(client: Redis, key: str, limit: int, before: Place | None = None) -> list[Place]:
    """Return the newest `limit` places, newest first; only those that come after `before` in that order.

    Args:
        client: its errors pass through.
        key: a sorted set; the scores are seconds since 1970.
        limit: at most so many.
        before: where the page before ended, whether or not that id is still there; None: begin.
    """
    found: list[tuple[bytes, float]]
    if before is None:
        found = _pairs(client.zrange(key, 0, limit - 1, desc=True, withscores=True))
    else:
        moment, last = before[0].timestamp(), before[1].encode()
        with client.pipeline(transaction=False) as pipe:
            pipe.zrange(key, moment, moment, desc=True, byscore=True, withscores=True)
            pipe.zrange(
                key,
                f"({moment!r}",
                "-inf",
                desc=True,
                byscore=True,
                offset=0,
                num=limit,
                withscores=True,
            )
            same, older = map(_pairs, pipe.execute())
        found = [pair for pair in same if pair[0] < last] + older
    return [(datetime.fromtimestamp(score, UTC), raw.decode()) for raw, score in found[:limit]]


def kept(
    places: Callable[[int, Place | None], Sequence[Place]],
    read: Callable[[Sequence[str]], Sequence[bytes | None]],
    limit: int,
    before: Place | None,
) -> list[tuple[str, bytes]]:
    """Return the newest `limit` ids with what is kept under them, newest first.

    What was taken or expired since its place was read is made up for by an older one: a page that is not full
    is the last.

    Args:
        places: as the function of this name.
        read: returns what is kept under ids; None for what is gone.
        limit: at most so many.
        before: as above.
    """
    found: list[tuple[str, bytes]] = []
    while wanted := limit - len(found):
        asked = places(wanted, before)
        ids = [record_id for _, record_id in asked]
        found += [(one, raw) for one, raw in zip(ids, read(ids), strict=True) if raw is not None]
        if len(asked) < wanted:
            break
        before = asked[-1]
    return found


def _pairs(reply: Any) -> list[tuple[bytes, float]]:
    return [(raw, float(score)) for raw, score in reply]
