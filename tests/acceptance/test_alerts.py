"""An operator's alerts, on the command line against a running service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from techdeck_tasks.runtime import create_app, runtime_of

EXITS = {"ok": 0, "failed": 1, "bad input": 2, "unavailable": 3}


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's setting, and what it received."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield json.dumps([f"json://ops:geheim@127.0.0.1:{server.server_address[1]}/"]), received
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_an_alert_is_found_told_taken_charge_of_and_silenced(
    service: Any, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    setting, received = hook
    runtime = runtime_of(create_app(service.settings))
    message = runtime.quarantine.add("malformed", b"canary.patient@example.org", queue="pipeline")
    runtime.engine.dispose()

    evaluated = service.techdeck("alerts", "evaluate", "--json", TECHDECK_ALERT_CHANNELS=setting)
    assert evaluated.returncode == EXITS["failed"], evaluated.stderr
    assert json.loads(evaluated.stdout)["unknown"] == []
    listed = service.techdeck("alerts", "list", "--json")
    assert listed.returncode == EXITS["failed"]
    (alert,) = (a for a in json.loads(listed.stdout)["alerts"] if a["alert_type"] == "quarantine")
    assert "canary" not in json.dumps(received) + listed.stdout

    name = alert["alert_id"][:8]
    taken = service.techdeck("alerts", "acknowledge", name, "--reason", "looking", "--owner", "amira")
    assert taken.returncode == EXITS["ok"], taken.stderr
    again = service.techdeck("alerts", "acknowledge", name, "--reason", "looking", "--owner", "bo")
    assert again.returncode == EXITS["bad input"]
    shown = service.techdeck("alerts", "show", name, "--json")
    assert json.loads(shown.stdout)["acknowledged_by"] == "amira"

    silenced = service.techdeck(
        "alerts", "silence", "--type", "quarantine", "--hours", "1", "--reason", "planned", "--json"
    )
    assert silenced.returncode == EXITS["ok"], silenced.stderr
    assert "silenced" in service.techdeck("alerts", "list").stdout
    silence_id = json.loads(silenced.stdout)["silence_id"]
    assert service.techdeck("alerts", "unsilence", silence_id, "--reason", "done").returncode == EXITS["ok"]
    runtime.quarantine.take(message.message_id)


def test_a_channel_can_be_tried(service: Any, hook: tuple[str, list[dict[str, Any]]]) -> None:
    setting, received = hook
    tried = service.techdeck("alerts", "test-channel", TECHDECK_ALERT_CHANNELS=setting)
    assert (tried.returncode, tried.stdout) == (EXITS["ok"], "primary-1 (json): accepted\n"), tried.stderr
    assert [sent["title"] for sent in received] == ["[default] test"]
    nowhere = json.dumps(["json://ops:geheim@127.0.0.1:1/"])
    refused = service.techdeck("alerts", "test-channel", "--json", TECHDECK_ALERT_CHANNELS=nowhere)
    assert refused.returncode == EXITS["failed"]
    assert not json.loads(refused.stdout)["primary-1 (json)"]["accepted"]
    assert "geheim" not in tried.stderr + refused.stdout + refused.stderr
    assert service.techdeck("alerts", "test-channel").returncode == EXITS["bad input"]


def test_without_a_database_alerts_say_so(techdeck: Any, service: Any) -> None:
    keys = {
        "TECHDECK_KEYS_DIR": str((service.folder / service.settings.keys_dir).resolve()),
        "TECHDECK_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    }
    assert techdeck("alerts", "list", **keys).returncode == EXITS["unavailable"]
