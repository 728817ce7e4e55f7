"""Real channels: a mail server and a webhook on this machine."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from pydantic import SecretStr

from techdeck_tasks.alerts.channels import open_channels
from techdeck_tasks.alerts.condition import Severity
from techdeck_tasks.audit.event import AuditEvent, EventType
from techdeck_tasks.audit.writing.stream import STREAM
from techdeck_tasks.audit.writing.writer import AuditWriter
from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.errors import HIPAAComplianceError, ValidationError
from techdeck_tasks.resilience.breaker import State
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings, load_settings

# apprise's mail plug-in imports PGP support, which uses a module that leaves the standard library.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

CANARY = "Mrs-Canary-4711"
PASSWORD = "hunter2-s3cret"


class Webhook:
    """Takes JSON by HTTP; answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.status == 200:
                    outer.received.append(json.loads(body))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"json://ops:{PASSWORD}@127.0.0.1:{self.port}/hook")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.stop()


class Mailbox:
    """A mail server's inbox."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, SecretStr]]:
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    port = server.port
    yield (
        box,
        SecretStr(f"mailto://127.0.0.1:{port}?from=techdeck@example.org&to=ops@example.org&mode=insecure"),
    )
    server.stop()


def test_a_mail_arrives_with_title_and_text(mailbox: tuple[Mailbox, SecretStr]) -> None:
    box, url = mailbox
    (channel,) = open_channels([url], [], 10).primary
    assert channel.name == "primary-1 (mailto)"
    assert channel.send("[clinic] CRITICAL: audit_backlog", "9 events wait", Severity.CRITICAL) is None
    (mail,) = box.mails
    assert mail["Subject"] == "[clinic] CRITICAL: audit_backlog"
    assert mail["To"] == "ops@example.org"
    assert "9 events wait" in mail.get_body().get_content()


def test_a_webhook_that_is_down_is_told_apart_from_one_that_is_up(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    (channel,) = open_channels([webhook.url], [], 10).primary
    with caplog.at_level(logging.DEBUG):
        webhook.status = 503
        assert channel.send("title", "body", Severity.WARNING) == "not accepted (failure)"
        webhook.status = 200
        assert channel.send("title", "body", Severity.WARNING) is None
    assert [(sent["title"], sent["message"]) for sent in webhook.received] == [("title", "body")]
    assert PASSWORD not in caplog.text + repr(channel)


def test_a_server_that_never_answers_costs_no_more_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = SecretStr(f"json://127.0.0.1:{silent.getsockname()[1]}/")
        (channel,) = open_channels([url], [], 1.0).primary
        channel.check()
        began = time.monotonic()
        assert channel.send("title", "body", Severity.WARNING) is not None
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["no-url-at-all", f"nosuchkind://user:{PASSWORD}@host", "mailto://"])
def test_a_url_that_cannot_be_used_is_refused_before_a_worker_starts(settings: Settings, url: str) -> None:
    bad = settings.model_copy(update={"alert_channels": (SecretStr(url),)})
    with pytest.raises(ValidationError, match="primary-1") as refused:
        create_app(bad, Role.AUDIT)
    assert PASSWORD not in str(refused.value)


def test_urls_are_in_no_repr_and_no_error_of_the_settings() -> None:
    settings = load_settings(alert_channels=[f"json://ops:{PASSWORD}@host/"])
    assert PASSWORD not in repr(settings) + str(settings)


@pytest.fixture
def alerting(settings: Settings, redis_client: Any, webhook: Webhook, own_database: Any) -> Iterator[Runtime]:
    """A runtime that tells the webhook, on an emptied Redis and a database of its own."""
    url = own_database.url.render_as_string(hide_password=False)
    changes = {"alert_channels": (webhook.url,), "database_url": SecretStr(url)}
    runtime = runtime_of(create_app(settings.model_copy(update=changes)))
    yield runtime
    runtime.engine.dispose()


def test_what_the_service_really_is_in_is_found_and_told_without_any_data(
    alerting: Runtime, webhook: Webhook
) -> None:
    alerting.handler.handle(
        HIPAAComplianceError(f"{CANARY} was seen", violation_type="disclosure"),
        {"user_id": CANARY, "patient": CANARY, "service": "lab"},
    )
    alerting.breakers.get("pharmacy").force(State.FORCED_OPEN, owner="amira", reason=CANARY)
    alerting.quarantine.add("malformed", CANARY.encode(), queue="pipeline")
    done = alerting.alert_evaluator.evaluate(timedelta(0))
    assert done.unknown == ()
    titles = {sent["title"] for sent in webhook.received}
    assert {
        "[default] CRITICAL: hipaa_violation",
        "[default] WARNING: breaker_open:pharmacy",
        "[default] WARNING: quarantine",
    } <= titles
    assert CANARY not in json.dumps(webhook.received)
    assert done.delivered == len(webhook.received) == done.fired
    for alert in alerting.alerts.search():
        assert CANARY not in json.dumps(alert.to_dict())


def test_an_incident_counts_as_notified_only_when_a_channel_took_it(
    alerting: Runtime, webhook: Webhook
) -> None:
    event = AuditEvent(
        event_type=EventType.SECURITY_INCIDENT,
        severity="high",
        service="web",
        operation="login",
        error_code="AUTH_ERROR",
        document={"message": CANARY},
    )
    writer = AuditWriter(alerting.engine, "audit@one", SystemClock())
    writer.prepare_partitions()
    writer.write([alerting.sealer.seal(event)])
    assert alerting.incidents.catch_up() == 1
    webhook.status = 503
    alerting.alert_evaluator.evaluate(timedelta(0))
    (incident,) = alerting.incidents.search()
    assert not incident.notification_sent
    webhook.status = 200
    with alerting.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alert_delivery SET next_attempt_at = now() - interval '1 s'")
    alerting.alert_evaluator.evaluate(timedelta(0))
    incident = alerting.incidents.get(incident.incident_id)
    assert (incident.notification_sent, incident.notification_channel) == (True, "primary-1 (json)")
    assert CANARY not in json.dumps(webhook.received)
    assert alerting.redis.xlen(STREAM) > 0, "what happened is on its way to the audit log"
