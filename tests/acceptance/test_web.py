"""Tokens and the web server as an operator has them: on the command line."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import httpx

from techdeck_tasks.devservices.ports import free_port


def test_a_token_is_made_shown_once_used_and_revoked(service: Any) -> None:
    made = service.techdeck(
        "token", "create", "ada", "--role", "operator", "--role", "auditor", "--days", "1"
    )
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("td_")
    listed = service.techdeck("token", "list", "--json")
    (facts,) = [token for token in json.loads(listed.stdout) if token["name"] == "ada"]
    assert (facts["roles"], facts["state"]) == (["auditor", "operator"], "active")
    assert secret not in listed.stdout
    again = service.techdeck("token", "create", "ada", "--role", "operator")
    assert again.returncode == 2
    assert "given before" in again.stderr

    with _served(service, secret) as client:
        assert client.get("/api/v1/breakers").status_code == 200
        assert client.get("/static/techdeck.css").status_code == 200
        assert service.techdeck("token", "revoke", "ada").returncode == 0
        assert client.get("/api/v1/breakers").status_code == 401


def test_a_file_is_sent_over_http_and_is_a_pipelines_source(service: Any) -> None:
    secret = service.techdeck("token", "create", "sender", "--role", "submitter").stdout.strip()
    content = b"name,age\n" + b"Ada,36\n" * 5000
    with _served(service, secret) as client:
        announced = {
            "filename": "people of the ward.csv",
            "size_bytes": len(content),
            "sha256": sha256(content).hexdigest(),
        }
        upload = client.post("/api/v1/uploads", json=announced).headers["Location"]
        for offset in range(0, len(content), 9000):
            chunk = content[offset : offset + 9000]
            headers = {
                "Content-Type": "application/offset+octet-stream",
                "Upload-Offset": str(offset),
                "Upload-Checksum": f"sha256 {base64.b64encode(sha256(chunk).digest()).decode()}",
            }
            assert client.patch(upload, content=chunk, headers=headers).status_code == 204
        source = client.post(f"{upload}/complete").json()["source"]
        stages = [{"name": "take", "stage": "file_upload", "params": {"sha256": announced["sha256"]}}]
        started = client.post("/api/v1/runs", json={"name": "sent", "source": source, "stages": stages})
        run = f"/api/v1/runs/{started.json()['run_id']}"
        deadline = time.monotonic() + 30
        while (state := client.get(run).json()["state"]) in ("queued", "running"):
            assert time.monotonic() < deadline, "the run does not end"
        assert state == "succeeded", client.get(run).text
        (stage,) = client.get(run).json()["stages"]
    assert stage["rows_done"] == 5000


def test_prometheus_finds_the_numbers_of_a_service_that_is_up(service: Any) -> None:
    deadline = time.monotonic() + 30
    while True:
        page = httpx.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
        if "techdeck_redis_up 1.0" in page and 'techdeck_queue_length{queue="pipeline"}' in page:
            return
        assert time.monotonic() < deadline, page


@contextmanager
def _served(service: Any, secret: str) -> Iterator[httpx.Client]:
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "techdeck_tasks", "web", "--port", str(port)],
        cwd=service.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        headers = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10) as client:
            deadline = time.monotonic() + 30
            while not _answers(client):
                assert time.monotonic() < deadline, "the web server does not answer"
                assert server.poll() is None, "the web server ended"
            yield client
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
