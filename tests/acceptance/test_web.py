"""Tokens and the web server as an operator has them: on the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
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

    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "techdeck_tasks", "web", "--port", str(port)],
        cwd=service.folder,
        stderr=subprocess.DEVNULL,
    )
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10) as client:
        deadline = time.monotonic() + 30
        while not _answers(client):
            assert time.monotonic() < deadline, "the web server does not answer"
            assert server.poll() is None, "the web server ended"
        assert client.get("/api/v1/breakers").status_code == 200
        assert client.get("/static/techdeck.css").status_code == 200
        assert service.techdeck("token", "revoke", "ada").returncode == 0
        assert client.get("/api/v1/breakers").status_code == 401
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
