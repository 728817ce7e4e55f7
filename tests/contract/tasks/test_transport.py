"""Channels of the worker's transport on a real Redis."""

from __future__ import annotations

from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport import redis as kombu_redis

from techdeck_tasks.tasks.transport import tolerant


def test_a_channel_that_is_closed_after_its_connection_ends_no_worker(redis_url: str) -> None:
    """As where Redis dies while a worker has messages in hand; Redis delivers them again."""
    reading = tolerant(kombu_redis.Transport, lambda *_: True)
    with Connection(redis_url, transport=reading) as connection:
        queue = Queue("closed-late", Exchange(""), "closed-late", channel=connection.default_channel)
        queue.declare()
        connection.Producer().publish("work", routing_key="closed-late")
        channel = connection.default_channel
        assert queue.get() is not None
        channel._disconnect_pools()
        client, connection.transport.client = connection.transport.client, None
        connection.maybe_close_channel(channel)
        connection.transport.client = client
