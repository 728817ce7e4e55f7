"""However the owner ends, nothing keeps running, and the next start finds the data."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
import redis
from family import is_watchdog

from techdeck_tasks.devservices import DevServiceError, DevServices, EmbeddedRedis, ServiceUrls
from techdeck_tasks.devservices.orphans import is_over

if TYPE_CHECKING:
    from conftest import Owner

Eventually = Callable[[Callable[[], bool]], None]
StartOwner = Callable[..., "Owner"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]


def _gone(*processes: psutil.Process) -> bool:
    return all(map(is_over, processes))


def _remember(urls: ServiceUrls, word: str) -> None:
    with redis.Redis.from_url(urls.redis_url) as client:
        client.set("word", word)
        client.config_set("appendfsync", "always")
        client.set("word", word)
    with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE word (word text)")
        connection.execute("INSERT INTO word VALUES (%s)", [word])


def _recall(urls: ServiceUrls) -> tuple[str, str]:
    with redis.Redis.from_url(urls.redis_url, decode_responses=True) as client:
        first = client.get("word")
    with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT word FROM word").fetchone()
    assert row is not None
    return str(first), row[0]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_the_owner_leaves_no_process_and_no_temporary_folder(
    number: signal.Signals, start_owner: StartOwner, eventually: Eventually
) -> None:
    owner = start_owner()
    (server,) = owner.named("redis-server")
    folder = Path(server.cwd()).parent
    assert folder.is_dir()
    owner.process.send_signal(number)
    owner.process.wait()
    eventually(lambda: _gone(*owner.family) and not folder.exists())


def test_a_process_forked_by_a_killed_owner_does_not_keep_the_servers_alive(
    start_owner: StartOwner, eventually: Eventually
) -> None:
    owner = start_owner(mode="fork")
    assert owner.forked_pid is not None
    owner.process.kill()
    owner.process.wait()
    eventually(lambda: _gone(*owner.family))
    assert psutil.pid_exists(owner.forked_pid)


def test_a_start_right_after_the_owner_was_killed_finds_the_data(
    tmp_path: Path, start_owner: StartOwner
) -> None:
    owner = start_owner(tmp_path)
    _remember(owner.urls, "kept")
    owner.process.kill()
    owner.process.wait()
    with DevServices(tmp_path) as urls:
        assert _gone(*owner.family)
        assert _recall(urls) == ("kept", "kept")


def test_servers_whose_watchdogs_were_killed_too_are_stopped_by_the_next_start(
    tmp_path: Path, start_owner: StartOwner
) -> None:
    owner = start_owner(tmp_path)
    _remember(owner.urls, "kept")
    for watchdog in owner.watchdogs():
        watchdog.kill()
    owner.process.kill()
    owner.process.wait()
    assert owner.named("postgres")
    assert owner.named("redis-server")
    with DevServices(tmp_path) as urls:
        assert _gone(*owner.family)
        assert _recall(urls) == ("kept", "kept")


def test_servers_that_were_killed_recover_their_data_at_the_next_start(
    tmp_path: Path, start_owner: StartOwner, eventually: Eventually
) -> None:
    owner = start_owner(tmp_path)
    _remember(owner.urls, "kept")
    for process in (*owner.named("postgres"), *owner.named("redis-server")):
        process.kill()
    owner.process.kill()
    owner.process.wait()
    eventually(lambda: _gone(*owner.family))
    assert (tmp_path / "postgres" / "cluster" / "postmaster.pid").exists()
    assert (tmp_path / "redis" / "redis.pid").exists()
    with DevServices(tmp_path) as urls:
        assert _recall(urls) == ("kept", "kept")


def test_a_stale_pid_file_with_the_id_of_another_process_stops_neither_it_nor_the_start(
    tmp_path: Path,
) -> None:
    with DevServices(tmp_path) as urls:
        _remember(urls, "kept")
    with subprocess.Popen(["sleep", "600"], cwd=tmp_path / "redis") as stranger:
        (tmp_path / "redis" / "redis.pid").write_text(f"{stranger.pid}\n")
        (tmp_path / "postgres" / "cluster" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        try:
            with DevServices(tmp_path) as urls:
                assert _recall(urls) == ("kept", "kept")
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_folder_in_use_by_another_living_process_is_refused(
    tmp_path: Path, start_owner: StartOwner
) -> None:
    owner = start_owner(tmp_path)
    with pytest.raises(DevServiceError, match=f"in use by process {owner.process.pid};"):
        DevServices(tmp_path).start()
    with redis.Redis.from_url(owner.urls.redis_url) as client:
        assert client.ping()


def test_an_owner_whose_watchdog_was_killed_still_stops_its_server(eventually: Eventually) -> None:
    before = set(psutil.Process().children(recursive=True))
    services = EmbeddedRedis()
    services.start()
    family = set(psutil.Process().children(recursive=True)) - before
    (watchdog,) = filter(is_watchdog, family)
    watchdog.kill()
    services.stop()
    eventually(lambda: _gone(*family))
