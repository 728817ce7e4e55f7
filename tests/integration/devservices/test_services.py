"""Both servers as their user sees them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis
import sqlalchemy
from family import is_named, is_watchdog

from techdeck_tasks.devservices import DevServices, EmbeddedPostgres, EmbeddedRedis, ServiceUrls
from techdeck_tasks.devservices.ports import free_port

Answers = Callable[[ServiceUrls], bool]


def _servers() -> list[psutil.Process]:
    family = psutil.Process().children(recursive=True)
    return [process for process in family if is_named(process, "postgres", "redis-server")]


def _folder_of(urls: ServiceUrls) -> Path:
    port = urlsplit(urls.redis_url).port
    for process in _servers():
        if any(connection.laddr.port == port for connection in process.net_connections("tcp")):
            return Path(process.cwd()).parent
    raise AssertionError("no process listens on the port of the URL")


def test_redis_answers_at_its_url(running: ServiceUrls) -> None:
    with redis.Redis.from_url(running.redis_url, decode_responses=True) as client:
        client.set("greeting", "hello")
        assert client.get("greeting") == "hello"


def test_postgresql_answers_sqlalchemy_at_its_url(running: ServiceUrls) -> None:
    engine = sqlalchemy.create_engine(running.database_url)
    with engine.connect() as connection:
        row = connection.execute(sqlalchemy.text("SELECT current_user, current_database(), 'ä'")).one()
    engine.dispose()
    assert tuple(row) == ("techdeck", "techdeck", "ä")


def test_redis_never_evicts_and_logs_each_write(running: ServiceUrls) -> None:
    with redis.Redis.from_url(running.redis_url, decode_responses=True) as client:
        values: dict[str, str] = {}
        for name in ("maxmemory-policy", "appendonly", "save"):
            values |= client.config_get(name)
    assert values == {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""}


def test_a_kept_folder_is_as_durable_as_the_servers_allow(tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(tmp_path) as server,
        psycopg.connect(server.url.replace("+psycopg", "")) as connection,
    ):
        safety = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("fsync", "full_page_writes", "synchronous_commit")
        ]
    assert safety == [("on",), ("on",), ("on",)]


def test_a_client_without_the_password_is_refused(running: ServiceUrls) -> None:
    for secret in ("", ":wrong@"):
        port = urlsplit(running.redis_url).port
        with (
            redis.Redis.from_url(f"redis://{secret}127.0.0.1:{port}/0") as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
    port = urlsplit(running.database_url).port
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://techdeck:wrong@127.0.0.1:{port}/techdeck")


def test_the_servers_listen_on_the_loopback_interface_only(running: ServiceUrls) -> None:
    listening = {
        connection.laddr
        for process in _servers()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = {urlsplit(running.redis_url).port, urlsplit(running.database_url).port}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert ports <= {address.port for address in listening}


def test_no_process_list_and_no_repr_shows_a_password(running: ServiceUrls) -> None:
    secrets = {urlsplit(running.redis_url).password, urlsplit(running.database_url).password}
    listing = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
    assert "redis-server" in listing
    for secret in secrets:
        assert secret
        assert secret not in listing
        assert secret not in repr(running)


def test_files_with_a_password_are_readable_by_their_owner_only(running: ServiceUrls) -> None:
    folder = _folder_of(running)
    secrets = [urlsplit(url).password or "" for url in (running.redis_url, running.database_url)]
    revealing = [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
    ]
    assert {path.name for path in revealing} == {"password", "redis.conf"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in revealing} == {0o600}


def test_the_servers_inherit_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHDECK_PLANTED", "secret-of-the-owner")
    with (
        EmbeddedPostgres() as server,
        psycopg.connect(server.url.replace("+psycopg", "")) as connection,
    ):
        connection.execute("CREATE TEMPORARY TABLE environment (line text)")
        connection.execute("COPY environment FROM PROGRAM 'env'")
        lines = [line for (line,) in connection.execute("SELECT line FROM environment")]
    assert "TZ=UTC" in lines
    assert not any("secret-of-the-owner" in line for line in lines)


def test_data_is_found_again_after_a_restart_in_the_same_folder_however_deep(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a folder with a long name"] * 6)
    services = DevServices(folder)
    with services as urls:
        first = urls
        with redis.Redis.from_url(urls.redis_url) as client:
            client.set("kept", "yes")
        with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with services as urls:
        with redis.Redis.from_url(urls.redis_url) as client:
            assert client.get("kept") == b"yes"
        with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    assert urlsplit(urls.redis_url).password == urlsplit(first.redis_url).password
    assert (folder / "postgres.log").stat().st_size > 0
    assert (folder / "redis.log").stat().st_size > 0


def test_a_temporary_folder_is_removed_at_the_end() -> None:
    services = DevServices()
    folder = _folder_of(services.start())
    assert folder.is_dir()
    services.stop()
    assert not folder.exists()


def test_two_instances_run_side_by_side_each_on_the_ports_it_was_given(
    running: ServiceUrls, answers: Answers
) -> None:
    redis_port, postgres_port = free_port(), free_port()
    with DevServices(redis_port=redis_port, postgres_port=postgres_port) as second:
        assert urlsplit(second.redis_url).port == redis_port
        assert urlsplit(second.database_url).port == postgres_port
        assert answers(running)
        assert answers(second)
    assert answers(running)


def test_starting_twice_changes_nothing(services: DevServices, running: ServiceUrls) -> None:
    assert services.start() == running


def test_a_terminals_interrupt_does_not_reach_the_servers(running: ServiceUrls) -> None:
    # Other tests of this process may have left children that are no servers.
    watchdogs = list(filter(is_watchdog, psutil.Process().children()))
    assert watchdogs
    assert os.getsid(0) not in {os.getsid(watchdog.pid) for watchdog in watchdogs}


def test_a_stopped_temporary_server_can_be_stopped_and_started_again() -> None:
    server = EmbeddedRedis()
    for _ in range(2):
        server.start()
        server.stop()
        server.stop()


def test_a_server_that_was_shut_down_by_a_client_is_started_again(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
            client.shutdown()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"


def test_a_forked_child_uses_the_servers_but_does_not_stop_them(
    services: DevServices, running: ServiceUrls, answers: Answers
) -> None:
    child = os.fork()
    if child == 0:
        services.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert answers(running)
    assert services.start() == running
