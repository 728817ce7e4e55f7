"""Breakers in Redis: one script, one round trip an operation.

Keys of a breaker share one cluster slot: ``td:cb:{name}:s``, ``:l`` and ``:e``; ``lua/state.lua`` says what
they hold. ``td:cb:index`` is a zset of the names that had a transition, by time. It has a slot of its own, so
no breaker's script can write it: a process does when it first sees an epoch of the breaker, and hourly while
there are transitions. A process killed between the two loses nothing: the transition is in the breaker's
stream, and the next process that asks mends the index.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.cluster import RedisCluster

from techdeck_tasks.resilience.breaker.state import (
    Batch,
    BreakerStore,
    Grant,
    Override,
    ProbeOutcome,
    Reply,
    State,
    StoreAwayError,
    Transition,
)
from techdeck_tasks.storage.redis_client import REDIS_FAILURES, RedisClient, Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from techdeck_tasks.resilience.breaker.config import BreakerConfig

logger = logging.getLogger(__name__)

INDEX = "td:cb:index"
MAX_INDEXED = 10_000
"""Names that `names` can tell; beyond it those whose last transition is longest ago drop out."""

_PACKAGE = "techdeck_tasks.resilience.breaker"
_SYNC, _FAIL, _LEASE, _SETTLE, _OVERRIDE, _HOLD, _RESET = (
    Script.load(_PACKAGE, "lua/state.lua", f"lua/{operation}.lua")
    for operation in ("sync", "fail", "lease", "settle", "override", "hold", "reset")
)
_INDEX_SCRIPT = Script.load(_PACKAGE, "lua/index.lua")


class RedisBreakerStore:
    """A `BreakerStore` that every process of the same Redis shares. Holds no state but the client.

    Args:
        client: bounded, without retries of its own (`connect_redis`).
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def sync(self, name: str, config: BreakerConfig, batch: Batch) -> Reply:
        """Count the successes of `batch`, and tell the state."""
        return self._run(_SYNC, name, config, *_flat(batch))

    def fail(self, name: str, config: BreakerConfig, batch: Batch, *, epoch: int, cost: int) -> Reply:
        """Count `batch`, then one failure of a closed call of `epoch`; charge `cost` tokens for a retry."""
        return self._run(_FAIL, name, config, *_flat(batch), epoch, cost)

    def lease(self, name: str, config: BreakerConfig, permit_id: str) -> Reply:
        """Ask for a call: passes, leases a probe (or renews the lease `permit_id` holds), or denies."""
        return self._run(_LEASE, name, config, permit_id)

    def settle(
        self,
        name: str,
        config: BreakerConfig,
        *,
        epoch: int,
        permit_id: str,
        outcome: ProbeOutcome,
        cost: int,
    ) -> Reply:
        """End the probe `permit_id` of `epoch`; counts only while its lease is live."""
        return self._run(_SETTLE, name, config, epoch, permit_id, outcome.value, cost)

    def override(
        self, name: str, config: BreakerConfig, state: State, *, ttl_ms: int, owner: str, reason: str
    ) -> Reply:
        """Set an override for `ttl_ms` milliseconds; 0: until it is cleared."""
        return self._run(_OVERRIDE, name, config, state.value, ttl_ms, owner, reason)

    def clear(self, name: str, config: BreakerConfig, *, owner: str, reason: str) -> Reply:
        """End an override."""
        return self._run(_OVERRIDE, name, config, "", 0, owner, reason)

    def hold(self, name: str, config: BreakerConfig, *, hold_ms: int, reason: str) -> Reply:
        """Open the breaker for at least `hold_ms`; an open one is only prolonged."""
        return self._run(_HOLD, name, config, hold_ms, reason)

    def reset(self, name: str, config: BreakerConfig, *, owner: str, reason: str) -> Reply:
        """Close the breaker and forget its counts; an override stays."""
        return self._run(_RESET, name, config, owner, reason)

    def names(self) -> list[str]:
        """Return the names that had a transition, the most recent last."""
        found: list[bytes | str] = self._ask("zrange", INDEX, 0, -1)
        return [_text(name) for name in found]

    def transitions(self, cursors: Mapping[str, str], limit: int) -> list[tuple[str, str, Transition]]:
        """Return up to `limit` transitions of each name after its cursor: (name, cursor, transition)."""
        found = []
        for name in self.names():
            after = cursors.get(name, "-")
            first = after if after == "-" else f"({after}"
            for entry_id, fields in self._ask("xrange", _keys(name)[2], first, "+", limit):
                values = {_text(key): _text(value) for key, value in fields.items()}
                event = Transition(
                    values["old"],
                    values["new"],
                    int(values["epoch"]),
                    values["reason"],
                    values["owner"],
                    int(values["at"]),
                )
                found.append((name, _text(entry_id), event))
        return found

    def remember(self, name: str, at_ms: int) -> None:
        """Put `name` into the index: it had a transition at `at_ms`."""
        try:
            _INDEX_SCRIPT(self._client, (INDEX,), (name, at_ms, MAX_INDEXED))
        except REDIS_FAILURES as failure:
            raise StoreAwayError(type(failure).__name__) from failure

    def _run(self, script: Script, name: str, config: BreakerConfig, *args: str | int) -> Reply:
        try:
            raw = script(self._client, _keys(name), (config.wire, *args))
        except REDIS_FAILURES as failure:
            if "WRONGTYPE" in str(failure):
                self._drop_foreign(name)
            raise StoreAwayError(type(failure).__name__) from failure
        return _parse(raw)

    def _drop_foreign(self, name: str) -> None:
        """Delete what somebody put in the place of this breaker's keys; the next call finds it closed."""
        for key, kind in zip(_keys(name), (b"hash", b"zset", b"stream"), strict=True):
            found = self._ask("type", key)
            if found not in (kind, kind.decode(), b"none", "none"):
                logger.warning("%s was no %s of a circuit breaker and is deleted", key, kind.decode())
                self._ask("delete", key)

    def _ask(self, command: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, command)(*args, **options)
        except REDIS_FAILURES as failure:
            raise StoreAwayError(type(failure).__name__) from failure


def store_on(backend: RedisClient | BreakerStore) -> BreakerStore:
    """Return `backend` as a store: a client is wrapped."""
    return RedisBreakerStore(backend) if isinstance(backend, (Redis, RedisCluster)) else backend


def _keys(name: str) -> tuple[str, str, str]:
    base = f"td:cb:{{{name}}}"
    return f"{base}:s", f"{base}:l", f"{base}:e"


def _flat(batch: Batch) -> tuple[int, int, int, int]:
    return batch.epoch, batch.ok, batch.slow, batch.age_ms


def _parse(raw: Sequence[Any]) -> Reply:
    """Build a `Reply` from what ``reply()`` of state.lua returns."""
    override = None
    if raw[9]:
        override = Override(State(_text(raw[9])), int(raw[10]), _text(raw[11]), _text(raw[12]))
    return Reply(
        state=State(_text(raw[0])),
        epoch=int(raw[1]),
        now_ms=int(raw[2]),
        open_left_ms=int(raw[3]),
        failures=int(raw[4]),
        trips=int(raw[5]),
        probe_successes=int(raw[6]),
        last_failure_ms=int(raw[7]),
        drain_left_ms=int(raw[8]),
        override=override,
        calls=int(raw[13]),
        slow=int(raw[14]),
        grant=Grant(_text(raw[15])),
        wait_ms=int(raw[16]),
        counted=bool(raw[17]),
        retry_allowed=bool(raw[18]),
        transitions=tuple(
            Transition(_text(old), _text(new), int(epoch), _text(reason), _text(owner), int(at))
            for old, new, epoch, reason, owner, at in raw[19]
        ),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
