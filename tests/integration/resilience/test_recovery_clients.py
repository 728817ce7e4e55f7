"""Recovery on real clients: what it reports is what the servers see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine, text

from techdeck_tasks.errors import ConnectionFailedError, PipelineExecutionError, classify
from techdeck_tasks.resilience import RecoveryManager, RecoveryResources, RetryRegistry
from techdeck_tasks.resilience.resources import DatabaseConnection, RedisCache, RedisConnection
from techdeck_tasks.settings import Settings

Server = Any
SETTINGS = Settings(connection_reset_delay_seconds=0)


def recover(resources: RecoveryResources, error: Exception, **context: Any) -> dict[str, Any]:
    manager = RecoveryManager(SETTINGS, resources)
    return dict(manager.attempt_recovery(error, classify(error), context))


def test_a_database_pool_gets_new_connections(database_url: str) -> None:
    engine = create_engine(database_url)
    backend = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        before = connection.scalar(backend)
    resources = RecoveryResources(connections={"warehouse": DatabaseConnection(engine)})
    result = recover(resources, ConnectionFailedError("x"), service="warehouse")
    assert result["successful"] is True
    with engine.connect() as connection:
        assert connection.scalar(backend) != before
    engine.dispose()


def test_a_redis_pool_gets_new_connections(server: Server) -> None:
    client = server.client(1.0)
    before = client.client_id()
    resources = RecoveryResources(connections={"redis": RedisConnection(client)})
    assert recover(resources, ConnectionFailedError("x"), service="redis")["successful"]
    assert client.client_id() != before


def test_a_connection_to_a_dead_server_is_not_recovered(server: Server) -> None:
    client = server.client(0.2)
    client.ping()
    server.kill()
    resources = RecoveryResources(connections={"redis": RedisConnection(client)})
    assert not recover(resources, ConnectionFailedError("x"), service="redis")["successful"]


def test_cached_entries_go_and_nothing_else_does(server: Server) -> None:
    client = server.client(1.0)
    client.mset({"td:cache:a": "1", "td:cache:b": "1", "td:audit": "precious", "a": "precious"})
    result = recover(
        RecoveryResources(cache=RedisCache(client)),
        PipelineExecutionError("stale"),
        recovery_strategy="clear_cache",
        cache_keys=["a", "c"],
    )
    assert (result["successful"], result["cleared"]) == (True, 1)
    assert set(client.keys()) == {b"td:cache:b", b"td:audit", b"a"}


def test_statistics_wait_while_redis_is_away_and_are_told_once(
    server: Server, until: Callable[..., None]
) -> None:
    registry = RetryRegistry(server.client())
    server.kill()
    registry.record("lab", 1, success=True)
    assert not registry.flush()
    assert registry.get_statistics("lab")["total_retries"] == 1, "this process's own"
    server.start()
    assert registry.flush()
    assert registry.flush()
    assert RetryRegistry(server.client()).get_statistics("lab")["total_retries"] == 1
