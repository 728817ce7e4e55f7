"""Flower beside a real worker: it shows how tasks fare, and nothing of what they are about."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from celery import chain
from worker_site import Sample, Site, WorkerProcess, wait_until

from techdeck_tasks.devservices.ports import free_port

LOGIN = ("operator", "correct-horse")
CANARY = f"canary{uuid.uuid4().hex[:12]}"


@pytest.fixture
def flower(site: Site, worker: WorkerProcess) -> Iterator[httpx.Client]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "techdeck_tasks", "worker", "flower", "--port", str(port)],
        cwd=site.folder,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TECHDECK_REDIS_URL": site.url,
            "TECHDECK_KEYS_DIR": str(site.folder / "no-keys"),
            "TECHDECK_ENV_FILE": "",
            "TECHDECK_FLOWER_BASIC_AUTH": ":".join(LOGIN),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, auth=LOGIN) as client:
            wait_until(lambda: "one@test" in _workers(client), "Flower knows the worker")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _workers(client: httpx.Client) -> dict[str, Any]:
    try:
        answer = client.get("/api/workers", params={"refresh": True})
    except httpx.TransportError:
        return {}
    return answer.json() if answer.status_code == 200 else {}


def test_flower_shows_states_codes_and_retries_and_no_canary(sample: Sample, flower: httpx.Client) -> None:
    fine = sample.task("ok").delay({"name": CANARY})
    failing = sample.task("own_error").delay(f"row of {CANARY}")
    retried = sample.task("foreign").delay()
    flow = chain(sample.task("ok").s(CANARY), sample.task("ok").s())()
    waiting = sample.task("ok").apply_async((CANARY,), countdown=40)
    for result in (fine, failing, retried, flow):
        result.get(timeout=30, propagate=False)
    ids = [fine.id, failing.id, retried.id, flow.id, flow.parent.id]

    def known() -> dict[str, Any] | None:
        tasks: dict[str, Any] = flower.get("/api/tasks").json()
        ended = all(tasks.get(task_id, {}).get("state") in {"SUCCESS", "FAILURE"} for task_id in ids)
        return tasks if ended and waiting.id in tasks else None

    tasks = wait_until(known, "Flower has seen all of them")
    sample.app.control.revoke(waiting.id)

    assert tasks[fine.id]["name"] == "sample.ok"
    assert tasks[fine.id]["runtime"] >= 0
    assert tasks[failing.id]["exception"] == "PatientError([masked])"
    assert "RETRY_EXHAUSTED" in tasks[retried.id]["exception"]
    assert tasks[retried.id]["retries"] == 3
    paths = [
        *("/", "/workers", "/tasks", "/broker", "/worker/one@test", "/metrics", "/api/tasks"),
        *("/api/task/types", "/api/queues/length"),
        *(f"/task/{task_id}" for task_id in ids),
        *(f"/api/task/info/{task_id}" for task_id in ids),
    ]
    pages = {path: flower.get(path) for path in paths}
    assert {path for path, page in pages.items() if page.status_code != 200} == set()
    pages["/api/workers"] = flower.get("/api/workers", params={"refresh": True})
    pages["/tasks/datatable"] = flower.get("/tasks/datatable")
    for task_id in ids:
        pages[f"result of {task_id}"] = flower.get(f"/api/task/result/{task_id}")
    assert {path for path, page in pages.items() if CANARY in page.text} == set()
    assert "sample.own_error" in pages["/metrics"].text


def test_flower_can_open_no_result(sample: Sample, flower: httpx.Client) -> None:
    result = sample.task("ok").delay(CANARY)
    assert result.get(timeout=30) == CANARY
    answer = flower.get(f"/api/task/result/{result.id}")
    assert CANARY not in answer.text
    assert answer.status_code != 200 or answer.json()["state"] != "SUCCESS"
