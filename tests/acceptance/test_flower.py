from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from techdeck_tasks.devservices.ports import free_port

LOGIN = ("operator", "correct-horse")


@pytest.fixture
def flower(service: Any) -> Iterator[httpx.Client]:
    """Flower beside the running service, with a login and no keys."""
    port = free_port()
    # Nothing of the tests' own environment but what is imported: Flower must need no key and no database.
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TECHDECK_REDIS_URL": service.settings.redis_url.get_secret_value(),
        "TECHDECK_FLOWER_BASIC_AUTH": ":".join(LOGIN),
        "TECHDECK_KEYS_DIR": "/nonexistent",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "techdeck_tasks", "worker", "flower", "--port", str(port)],
        cwd=service.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        deadline = time.monotonic() + 30
        while not _answers(client):
            assert time.monotonic() < deadline, "Flower does not answer"
            assert process.poll() is None, "Flower ended"
        yield client
    process.terminate()
    process.wait(20)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthcheck").status_code == 401
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/api/tasks", "/metrics", "/healthcheck"])
def test_flower_tells_nothing_without_the_login(flower: httpx.Client, path: str) -> None:
    assert flower.get(path).status_code == 401
    assert flower.get(path, auth=("operator", "wrong")).status_code == 401
    assert flower.get(path, auth=LOGIN).status_code == 200


def test_flower_shows_names_and_states_and_no_data(flower: httpx.Client, service: Any) -> None:
    source: Path = service.folder / "flower.csv"
    pl.DataFrame({"mail": ["flower.patient@example.org"]}).write_csv(source)
    definition = {
        "name": "flower-canary-definition",
        "source": {"url": str(source)},
        "stages": [{"name": "load", "stage": "dataset_load"}],
    }
    (service.folder / "flower.json").write_text(json.dumps(definition))
    assert service.techdeck("run", "flower.json").returncode == 0

    deadline = time.monotonic() + 20
    tasks: dict[str, Any] = {}
    while not any(task["state"] == "SUCCESS" for task in tasks.values()):
        assert time.monotonic() < deadline, tasks
        tasks = flower.get("/api/tasks", auth=LOGIN).json()

    assert "techdeck.stage.dataset_load" in {task["name"] for task in tasks.values()}
    assert {task["args"] for task in tasks.values()} == {"[masked]"}
    pages = [flower.get(f"/task/{task_id}", auth=LOGIN).text for task_id in tasks]
    for text in [json.dumps(tasks), *pages]:
        assert "flower-canary-definition" not in text
        assert "flower.patient" not in text


def test_flower_does_not_start_without_a_login(service: Any) -> None:
    started = service.techdeck("worker", "flower")

    assert started.returncode == 2
    assert "TECHDECK_FLOWER_BASIC_AUTH" in started.stderr
