"""`docker-compose.yml` as an operator uses it, in a copy of the project of its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PIPELINE_WORKERS = 3
ROWS = 2_000
DEFINITION = """\
name: people
source: {url: /data/input/people.csv}
stages:
  - {name: load, stage: dataset_load}
  - name: validate
    stage: validation
    needs: [load]
    params: {columns: {age: {dtype: int, ge: 0, le: 120}}}
  - {name: export, stage: export, needs: [validate], params: {destination: /data/output/people.parquet}}
"""


class Composition:
    """A running composition and the command of compose for it."""

    def __init__(self, folder: Path, flower_port: int) -> None:
        self.folder = folder
        self.flower_port = flower_port
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"techdeck-test-{os.getpid()}",
            "FLOWER_PORT": str(flower_port),
            "TECHDECK_INPUT": str(folder / "input"),
        }

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker-compose", *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def techdeck(self, *arguments: str) -> str:
        return self("run", "--rm", "-T", "cli", "techdeck", *arguments)

    def state(self, service: str) -> list[str]:
        """Return the health of each container of `service`; its status where it has no health check."""
        ids = self("ps", "-q", service).split()
        wanted = "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        inspected = subprocess.run(
            ["docker", "inspect", "--format", wanted, *ids], capture_output=True, text=True, check=True
        )
        return inspected.stdout.split()

    def flower(self, path: str, login: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.flower_port, timeout=10)
        headers = (
            {} if login is None else {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        )
        with closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()


@pytest.fixture(scope="module")
def composition(techdeck_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    folder = tmp_path_factory.mktemp("compose")
    for name in ("docker-compose.yml", "docker"):
        source = PROJECT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder)
    subprocess.run([folder / "docker" / "make-secrets"], check=True, capture_output=True)
    people = folder / "input"
    people.mkdir()
    rows = "\n".join(f"{number % 100},{'ab'[number % 2]}" for number in range(ROWS))
    (people / "people.csv").write_text(f"age,sex\n{rows}\n")
    (people / "people.yaml").write_text(DEFINITION)
    (people / "bad.yaml").write_text(DEFINITION.replace("le: 120", "le: 50"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    compose = Composition(folder, port)
    try:
        compose("up", "--detach", "--scale", f"pipeline={PIPELINE_WORKERS}")
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "5")


def test_every_service_becomes_healthy(composition: Composition, eventually: Callable[..., None]) -> None:
    eventually(lambda: composition.state("pipeline") == ["healthy"] * PIPELINE_WORKERS)
    for service in ("postgres", "redis", "audit", "flower"):
        eventually(lambda service=service: composition.state(service) == ["healthy"])
    assert composition.state("beat") == ["running"]


def test_a_pipeline_runs_and_its_error_is_audited(composition: Composition) -> None:
    run = json.loads(composition.techdeck("run", "/data/input/people.yaml", "--json"))
    assert run["state"] == "succeeded"
    with pytest.raises(AssertionError, match="VALIDATION_ERROR"):
        composition.techdeck("run", "/data/input/bad.yaml")
    assert "VALIDATION_ERROR" in composition.techdeck("audit", "list")
    assert "untouched" in composition.techdeck("audit", "verify")


def test_workers_hold_no_key_that_reads_the_log(composition: Composition) -> None:
    for service in ("pipeline", "audit"):
        held = composition("exec", "-T", service, "find", "/keys", "-name", "*.json")
        assert "message.json" in held
        assert "audit-private.json" not in held
    assert "checkpoint-private.json" not in composition("exec", "-T", "pipeline", "find", "/keys")


def test_flower_has_no_key_and_asks_for_the_password(composition: Composition) -> None:
    assert composition("exec", "-T", "flower", "find", "/keys", "-name", "*.json") == ""
    login = (composition.folder / "secrets" / "flower_basic_auth").read_text()
    for path in ("/", "/metrics", "/healthcheck", "/api/workers"):
        assert composition.flower(path)[0] == http.client.UNAUTHORIZED
    assert composition.flower("/metrics", login)[0] == http.client.OK


def test_processes_are_nobody_in_particular_and_cannot_write_to_their_image(composition: Composition) -> None:
    assert composition("exec", "-T", "pipeline", "id", "-u").strip() == "10001"
    with pytest.raises(AssertionError, match="Read-only file system"):
        composition("exec", "-T", "pipeline", "touch", "/opt/techdeck/planted")


def test_no_password_is_in_an_environment_or_a_command_line(composition: Composition) -> None:
    secrets = [path.read_text() for path in (composition.folder / "secrets").iterdir()]
    ids = composition("ps", "-q").split()
    shown = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True).stdout
    assert not any(secret in shown for secret in secrets)
