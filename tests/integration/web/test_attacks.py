"""Hostile input, oversized and slow requests, too many of them, and answers that give nothing away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from techdeck_tasks.runtime import create_app, runtime_of
from techdeck_tasks.settings import Settings
from techdeck_tasks.web.api.uploads import CHUNK_TYPE
from techdeck_tasks.web.app import create_web_app
from techdeck_tasks.web.auth import SESSION_COOKIE
from techdeck_tasks.web.headers import POLICY
from techdeck_tasks.web.server import HEADERS_TIMEOUT_S
from techdeck_tasks.web.sessions import SessionStore

Serve = Callable[[FastAPI], AbstractContextManager[str]]

INJECTIONS = [
    "' OR 1=1 --",
    "'; DROP TABLE audit_event; --",
    '" UNION SELECT digest FROM api_token --',
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "../../etc/passwd",
    "%00",
    "\x00",
    "a\r\nSet-Cookie: x=1",
    "\u200b\u202e\U0001f9ea",
    "x" * 201,
]


def connect(site: Any) -> socket.socket:
    parts = urlsplit(site.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=15)


@pytest.fixture
def browser(site: Any) -> Iterator[httpx.Client]:
    token = site.tokens.find(site.secrets["everybody"])
    session = SessionStore(site.runtime.redis, site.runtime.clock).open(token.token_id)
    with site.client(cookies={SESSION_COOKIE: session.secret}) as client:
        yield client


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_search_takes_text_as_text(site: Any, browser: httpx.Client, text: str) -> None:
    fields = ("service", "error_code", "error_id", "pipeline_id", "operation", "stage", "user")
    with site.client("auditor") as client:
        for field in fields:
            response = client.get("/api/v1/audit", params={field: text})
            assert response.status_code in (200, 400)
            assert response.status_code == 400 or response.json()["entries"] == []
    for field in fields:
        page = browser.get("/audit", params={field: text})
        assert page.status_code in (200, 400)
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
        assert ">49<" not in page.text


def test_what_errors_say_is_shown_as_text(
    site: Any, browser: httpx.Client, trip: Callable[[str], None], new_letter: Callable[..., Any]
) -> None:
    markup = "<script>alert(1)</script>"
    trip(markup)
    new_letter(task_name=markup, requirements={"do": markup})
    for path in ("/", "/breakers", "/dead-letters", f"/breakers/{markup}"):
        page = browser.get(path)
        assert page.status_code == 200
        assert markup not in page.text
        assert "&lt;script&gt;" in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/static/%00",
    ],
)
def test_no_file_outside_is_served(site: Any, path: str) -> None:
    # By hand: a client would tidy the path first.
    with connect(site) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.split()[1] in (b"404", b"400", b"405")
    assert b"import" not in answer
    assert b"root:" not in answer


def test_a_large_body_is_refused_declared_or_not(site: Any) -> None:
    size = site.runtime.settings.web_max_body_bytes + 1

    def parts() -> Any:
        for _ in range(size // 65536 + 1):
            yield b" " * 65536

    with site.client("submitter") as client:
        assert client.post("/api/v1/runs", content=b" " * size).status_code == 413
        assert client.post("/api/v1/runs", content=parts()).status_code == 413
        assert client.get("/api/v1/runs").status_code == 200


@pytest.mark.parametrize("length", ["-1", "x", "1e3"])
def test_a_body_of_no_length_is_refused(site: Any, length: str) -> None:
    with socket.create_connection(
        (urlsplit(site.url).hostname, urlsplit(site.url).port or 0), 10
    ) as connection:
        connection.sendall(
            f"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        assert connection.recv(100).split()[1] in (b"400", b"413")


def test_a_body_that_trickles_is_cut_off(site: Any) -> None:
    began = time.monotonic()
    with socket.create_connection(
        (urlsplit(site.url).hostname, urlsplit(site.url).port or 0), 10
    ) as connection:
        connection.sendall(
            b"POST /api/v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\nConnection: close\r\n\r\n{"
        )
        assert connection.recv(100).split()[1] == b"408"
    assert time.monotonic() - began < 3 * site.runtime.settings.web_timeout_seconds


def test_headers_that_never_end_are_hung_up_on(site: Any) -> None:
    with socket.create_connection(
        (urlsplit(site.url).hostname, urlsplit(site.url).port or 0), 10
    ) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow")
        assert connection.recv(100) == b""


@pytest.mark.parametrize("request_line", ["GET /healthz", "POST /api/v1/runs"])
def test_a_body_that_goes_on_after_its_answer_is_hung_up_on(site: Any, request_line: str) -> None:
    deadline = time.monotonic() + HEADERS_TIMEOUT_S + 3 * site.runtime.settings.web_timeout_seconds
    with connect(site) as connection:
        connection.settimeout(0.2)
        connection.sendall(f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        while not _hung_up(connection):
            assert time.monotonic() < deadline, "a client that trickles holds a connection"


def _hung_up(connection: socket.socket) -> bool:
    """Send a byte more, and tell whether the server has closed the connection."""
    try:
        connection.sendall(b".")
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_body_of_two_lengths_is_refused_and_its_connection_closed(site: Any) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(site) as connection:
        connection.sendall(
            b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n" + hidden
        )
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.split()[1] == b"400"
    assert answers.count(b"HTTP/1.1") == 1


def test_a_load_balancer_may_ask_without_wanting_a_body(site: Any) -> None:
    with site.client() as client:
        answer = client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_answer_that_takes_too_long_is_given_up(site: Any, serve: Serve) -> None:
    app = create_web_app(site.runtime)
    release = threading.Event()
    app.add_api_route("/slow", lambda: release.wait(20))
    with serve(app) as url:
        try:
            response = httpx.get(f"{url}/slow", timeout=15)
        finally:
            release.set()
    assert (response.status_code, response.json()["error_code"]) == (504, "TIMEOUT_ERROR")


def test_too_many_requests_are_put_off_and_told_until_when(
    site: Any, site_settings: Settings, serve: Serve
) -> None:
    settings = site_settings.model_copy(update={"web_requests_per_minute": 5})
    runtime = runtime_of(create_app(settings))
    for key in runtime.redis.scan_iter("td:web:rate:*"):
        runtime.redis.delete(key)
    with serve(create_web_app(runtime)) as url, site.client("submitter") as client:
        statuses = [client.get(f"{url}/api/v1/alerts").status_code for _ in range(5)]
        refused = client.get(f"{url}/api/v1/alerts")
        other = httpx.get(
            f"{url}/api/v1/alerts", headers={"Authorization": f"Bearer {site.secrets['operator']}"}
        )
        health = httpx.get(f"{url}/healthz")
    runtime.engine.dispose()
    assert statuses == [200] * 5
    assert (refused.status_code, refused.json()["error_code"]) == (429, "RATE_LIMIT_ERROR")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert (other.status_code, health.status_code) == (200, 200)


def test_made_up_tokens_cannot_fill_the_log(site: Any) -> None:
    for key in site.runtime.redis.scan_iter("td:web:rate:*"):
        site.runtime.redis.delete(key)
    with site.client() as client:
        statuses = [
            client.get("/api/v1/runs", headers={"Authorization": f"Bearer td_{number}"}).status_code
            for number in range(40)
        ]
    assert statuses == [401] * 30 + [429] * 10
    site.runtime.redis.delete("td:web:rate:{web}:refused:127.0.0.1")


@pytest.mark.parametrize(
    "path", ["/", "/login", "/api/v1/runs", "/nothing", "/static/techdeck.css", "/healthz"]
)
def test_every_answer_has_the_security_headers(site: Any, path: str) -> None:
    with site.client() as client:
        headers = client.get(path).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "server" not in headers


def test_a_browser_gets_a_page_for_an_error_and_a_program_json(browser: httpx.Client) -> None:
    page = browser.get("/runs/no-uuid", headers={"Accept": "text/html"})
    assert page.status_code == 400
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["X-Error-ID"] in page.text
    assert browser.get("/runs/no-uuid").json()["error_code"] == "VALIDATION_ERROR"


def test_no_input_makes_a_server_error(site: Any) -> None:
    schemathesis.serializer.alias(CHUNK_TYPE, "application/octet-stream")
    schema = schemathesis.openapi.from_url(f"{site.url}/api/v1/openapi.json")
    headers = {"Authorization": f"Bearer {site.secrets['everybody']}"}
    operations: list[Any] = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 46
    for operation in operations:
        _provoke(operation, headers)


def _provoke(operation: Any, headers: dict[str, str]) -> None:
    @hypothesis_settings(
        max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
    def call(case: Any) -> None:
        response = case.call(headers=headers)
        # What is away or refused at the moment (503, an open breaker) is no defect.
        assert response.status_code < 500 or response.status_code == 503, (operation.label, response.text)

    call()
