"""What every process needs first: settings, the time, keys, Redis and PostgreSQL."""

from __future__ import annotations

import os
import random
import weakref
from functools import cached_property

from celery import Celery
from redis import Redis
from sqlalchemy import Engine

from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.events import Listeners
from techdeck_tasks.keyring import (
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    MESSAGE_KEYS,
    Cipher,
    FollowedKeys,
    KeyFolders,
    KeySet,
    RecipientAlgorithm,
)
from techdeck_tasks.settings import Settings
from techdeck_tasks.storage.database import connect_database
from techdeck_tasks.storage.redis_client import connect_redis

STREAM_SOCKET_TIMEOUT_S = 5.0
"""Longer than the audit worker's blocking read."""


class Connections:
    """Settings, the time, keys and servers. Nothing is connected to before it is used.

    After a fork the child makes connections of its own.

    Args:
        settings: what the process was told.
        clock: the time.
        rng: where jitter comes from.
    """

    keeps_eager_letters = False
    """Whether tasks in eager mode leave dead letters and wait for people, as those in a worker do."""

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        # The system's source: forked children must not draw the same jitter.
        self.rng: random.Random = rng or random.SystemRandom()
        self.listeners = Listeners()
        self.app: Celery | None = None
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _leave_connections_to_parent(this()))

    @property
    def key_folders(self) -> KeyFolders:
        """The key files, to make and rotate them."""
        return KeyFolders(
            producer=self.settings.keys_dir,
            reader=self.settings.reader_keys_dir,
            signer=self.settings.signing_keys_dir,
            wrapped_by=self.settings.key_wrapping,
            algorithm=RecipientAlgorithm(self.settings.audit_key_algorithm),
        )

    @cached_property
    def cipher(self) -> Cipher:
        """Seals messages, results and stored definitions."""
        return Cipher(FollowedKeys(self.settings.keys_dir / MESSAGE_KEYS))

    @cached_property
    def sealer(self) -> Sealer:
        """Seals audit events to the reader's public key."""
        keys = self.settings.keys_dir
        return Sealer(
            KeySet.load(keys / AUDIT_PUBLIC_KEYS),
            KeySet.load(keys / BLIND_INDEX_KEYS),
            self.settings.tenant,
            keys_per_subject=self.settings.audit_keys_per_subject,
        )

    @cached_property
    def redis(self) -> Redis:
        """Redis, each call bounded by `redis_timeout_seconds`."""
        return connect_redis(self.settings)

    @cached_property
    def stream_redis(self) -> Redis:
        """Redis for blocking reads."""
        patient = self.settings.model_copy(update={"redis_timeout_seconds": STREAM_SOCKET_TIMEOUT_S})
        return connect_redis(patient)

    @cached_property
    def engine(self) -> Engine:
        """PostgreSQL."""
        return connect_database(self.settings)


def _leave_connections_to_parent(connections: Connections | None) -> None:
    if connections is not None and "engine" in connections.__dict__:
        connections.engine.dispose(close=False)
