"""How much of the audit log is still on its way, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis

from techdeck_tasks.audit.writing.spool import Spool
from techdeck_tasks.audit.writing.stream import DEAD_AFTER_MS, GROUP, QUARANTINE, QUARANTINED, STREAM
from techdeck_tasks.storage.redis_client import REDIS_FAILURES


@dataclass(frozen=True, slots=True)
class AuditBacklog:
    """What waits between the producers and PostgreSQL.

    Attributes:
        stream_entries: entries that are not committed yet; None, as all Redis's numbers, where it is away.
        pending_entries: of these, given to an audit worker and not acknowledged.
        oldest_age_s: how long the oldest entry has waited, in seconds; 0 where none waits.
        consumers: audit workers that were heard of lately.
        dead_consumers: audit workers that were not, and hold entries still.
        quarantined_entries: entries that can never be written and are kept for examination.
        quarantined_total: how many there ever were.
        spool_files: files in this machine's spool folder.
        spool_bytes: their size.
        damaged_spool_files: damaged files that are kept for examination.
    """

    stream_entries: int | None
    pending_entries: int | None
    oldest_age_s: float | None
    consumers: int | None
    dead_consumers: int | None
    quarantined_entries: int | None
    quarantined_total: int | None
    spool_files: int
    spool_bytes: int
    damaged_spool_files: int

    @property
    def redis_reachable(self) -> bool:
        """Whether Redis answered."""
        return self.stream_entries is not None


def read_backlog(client: redis.Redis, spool: Spool, now: datetime) -> AuditBacklog:
    """Measure stream, quarantine and spool at `now`. Never raises for an outage of Redis."""
    size = spool.size()
    on_disk = (size.files, size.size_bytes, size.damaged_files)
    try:
        return AuditBacklog(*_measure(client, now), *on_disk)
    except REDIS_FAILURES:
        return AuditBacklog(None, None, None, None, None, None, None, *on_disk)


def _measure(client: redis.Redis, now: datetime) -> tuple[int, int, float, int, int, int, int]:
    with client.pipeline(transaction=False) as pipe:
        pipe.xlen(STREAM)
        pipe.xrange(STREAM, count=1)
        pipe.xlen(QUARANTINE)
        pipe.get(QUARANTINED)
        length, oldest, quarantined, total = pipe.execute()
    waited_s = 0.0
    if oldest:
        since_ms = int(oldest[0][0].split(b"-")[0])
        waited_s = max(0.0, now.timestamp() - since_ms / 1e3)
    consumers = _consumers(client)
    alive = sum(consumer["idle"] < DEAD_AFTER_MS for consumer in consumers)
    dead = sum(consumer["idle"] >= DEAD_AFTER_MS and consumer["pending"] > 0 for consumer in consumers)
    pending = sum(consumer["pending"] for consumer in consumers)
    return length, pending, waited_s, alive, dead, quarantined, int(total or 0)


def _consumers(client: redis.Redis) -> list[dict[str, Any]]:
    try:
        found: Any = client.xinfo_consumers(STREAM, GROUP)
    except redis.ResponseError as error:
        # Before the first audit worker there is no group, and before the first event no stream.
        if "no such key" in str(error) or "NOGROUP" in str(error):
            return []
        raise
    return list(found)
