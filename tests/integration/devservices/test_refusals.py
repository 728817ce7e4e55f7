"""What cannot work ends in one line that says what, which limit, and the way out."""

from __future__ import annotations

import shutil
import socket
import sys
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from techdeck_tasks.devservices import DevServiceError, DevServices, EmbeddedPostgres, EmbeddedRedis
from techdeck_tasks.devservices.binaries import postgres_binary
from techdeck_tasks.devservices.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SERVERS = [EmbeddedPostgres, EmbeddedRedis]
AnyServer = type[EmbeddedPostgres] | type[EmbeddedRedis]


@pytest.fixture
def taken_port() -> Iterator[int]:
    # Bound, but not listening: a client is refused at once instead of waiting for an answer.
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(autouse=True)
def _nothing_is_left_running(eventually: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    eventually(lambda: set(psutil.Process().children(recursive=True)) <= before)


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("server", SERVERS)
def test_a_taken_port_is_named_with_the_remedy(server: AnyServer, taken_port: int) -> None:
    with pytest.raises(DevServiceError, match=rf"port {taken_port} .*taken.*choose another port"):
        server(port=taken_port).start()


@pytest.mark.parametrize("server", SERVERS)
def test_a_port_outside_the_bounds_is_refused(server: AnyServer) -> None:
    with pytest.raises(DevServiceError, match="port 65536 is outside 1 to 65535"):
        server(port=65536).start()


@pytest.mark.parametrize("server", SERVERS)
def test_another_port_is_tried_when_another_process_was_faster(server: AnyServer, taken_port: int) -> None:
    choices = iter([taken_port, free_port()])
    with server(choose_port=lambda: next(choices)) as running:
        assert f":{taken_port}/" not in running.url


@pytest.mark.parametrize("server", SERVERS)
def test_a_missing_program_is_named_with_the_command_that_installs_it(server: AnyServer) -> None:
    def missing() -> Path:
        raise DevServiceError("no program; run: pip install 'techdeck-tasks[embedded]'")

    with pytest.raises(DevServiceError, match=r"techdeck-tasks\[embedded\]"):
        server(binary=missing).start()


@pytest.mark.parametrize("server", SERVERS)
def test_a_program_that_fails_is_reported_with_the_last_lines_of_its_log(
    server: AnyServer, tmp_path: Path
) -> None:
    folder = tmp_path / "package" / "installation" / "bin"
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb", "redis-server"):
        program = _script(folder / name, "echo the disk is on fire >&2; exit 3")
    with pytest.raises(DevServiceError, match=r"ended while starting.*the disk is on fire") as caught:
        server(tmp_path / "data", binary=lambda: program.with_name(server.program_name)).start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("server", SERVERS)
def test_a_folder_in_use_by_this_process_is_refused_and_left_untouched(
    server: AnyServer, tmp_path: Path
) -> None:
    with server(tmp_path) as first:
        with pytest.raises(DevServiceError, match=r"in use by process .*choose another folder"):
            server(tmp_path).start()
        first.start()
        assert first.url


@pytest.mark.parametrize("server", SERVERS)
def test_a_data_folder_that_is_a_file_is_refused(server: AnyServer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DevServiceError, match="choose another folder"):
        server(file).start()


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_is_not_running_has_no_url(server: AnyServer) -> None:
    with pytest.raises(DevServiceError, match="not running"):
        _ = server().url


def test_when_one_server_cannot_start_the_other_one_is_stopped(taken_port: int) -> None:
    with pytest.raises(DevServiceError, match=f"Redis: port {taken_port}"):
        DevServices(redis_port=taken_port).start()


def test_data_without_its_password_file_is_refused_not_removed(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path):
        pass
    (tmp_path / "postgres" / "password").unlink()
    with pytest.raises(DevServiceError, match="password file is missing"):
        EmbeddedPostgres(tmp_path).start()
    assert (tmp_path / "postgres" / "cluster" / "PG_VERSION").exists()


def test_an_older_redis_does_not_start_empty_over_the_data_of_a_newer_one(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    old = _script(tmp_path / "redis-server", "echo 'Redis server v=6.2.14 sha=0'")
    with pytest.raises(DevServiceError, match="written by Redis 7 or newer"):
        EmbeddedRedis(tmp_path, binary=lambda: old).start()


def test_half_a_cluster_of_an_interrupted_start_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / "postgres" / "cluster.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path) as server:
        psycopg.connect(server.url.replace("+psycopg", "")).close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere root is refused")
def test_programs_and_data_in_a_folder_closed_to_others_work_even_for_root(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = postgres_binary()
    package = program.parents[2]
    copy = shutil.copytree(program.parents[1], closed / package.name / program.parents[1].name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, closed / libraries.name, symlinks=True)
    with EmbeddedPostgres(closed / "data", binary=lambda: copy / "bin" / program.name) as server:
        psycopg.connect(server.url.replace("+psycopg", "")).close()
    assert closed.stat().st_mode & 0o777 == 0o700
