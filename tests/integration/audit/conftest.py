from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.writing.stream import QUARANTINE, STREAM
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS, KeySet

_DEADLINE_S = 20.0


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition, not for a time."""
    return _wait


@pytest.fixture
def engine(own_database: Engine) -> Engine:
    return own_database


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Redis without anything of the audit's in it."""
    with redis.Redis.from_url(redis_url) as client:
        client.delete(STREAM, QUARANTINE)
        yield client


@pytest.fixture
def sealer(keys_dir: Path) -> Sealer:
    public, blind = (KeySet.load(keys_dir / name) for name in (AUDIT_PUBLIC_KEYS, BLIND_INDEX_KEYS))
    return Sealer(public, blind, "clinic")
