"""Error responses of a FastAPI application behind a real server."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI, HTTPException, Path, WebSocket
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import (
    AuthenticationError,
    RateLimitError,
    ServiceUnavailableError,
    lookup,
    registered_codes,
)
from techdeck_tasks.events import Listeners
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.web.errors import install, prefers_problem_json

SECRET = "the-vault-is-behind-the-mirror"
NAME = "Jane Roe"
OURS = [code for code in registered_codes() if lookup(code).__module__.startswith("techdeck_tasks.")]


class Trail:
    """Keeps events; can be told to fail closed."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.closed = False

    def record(self, event: AuditEvent) -> None:
        if self.closed:
            raise AuditUnavailableError("the audit log can take nothing")
        self.events.append(event)


class Visit(BaseModel):
    model_config = ConfigDict(extra="forbid")

    age: int = Field(ge=0, strict=True)
    notes: list[str] = []


def an_app(handler: ErrorHandler) -> FastAPI:
    app = FastAPI()

    @app.get("/raise/{code}")
    async def raise_ours(code: str) -> None:
        raise lookup(code)("a message of ours")

    @app.get("/foreign")
    async def raise_foreign() -> None:
        raise RuntimeError(SECRET)

    @app.get("/foreign-sync")
    def raise_foreign_in_a_thread() -> None:
        raise KeyError(SECRET)

    @app.get("/wait")
    async def wait() -> None:
        raise RateLimitError("slow down", reset_time=7)

    @app.get("/http/{status}")
    async def raise_http(status: Annotated[int, Path(ge=400, le=599)]) -> None:
        raise HTTPException(status, detail=SECRET, headers={"Allow": "PUT", "X-Leak": SECRET})

    @app.get("/not-modified")
    async def not_modified() -> None:
        raise HTTPException(304, headers={"ETag": "x"})

    @app.post("/visits")
    async def add_visit(visit: Visit) -> dict[str, int]:
        return {"age": visit.age}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise RuntimeError(SECRET)

        return StreamingResponse(parts())

    @app.get("/background")
    async def background() -> JSONResponse:
        def fail() -> None:
            raise RuntimeError(SECRET)

        return JSONResponse({}, background=BackgroundTask(fail))

    @app.websocket("/socket")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        raise RuntimeError(SECRET)

    install(app, handler)
    return app


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve `app` from a thread, on a port that the system chose, until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline, "the server did not start"
        threading.Event().wait(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def trail() -> Trail:
    return Trail()


@pytest.fixture(scope="module")
def app(trail: Trail) -> FastAPI:
    return an_app(
        ErrorHandler(
            audit=trail,
            listeners=Listeners(),
            clock=SystemClock(),
            retention_days=2190,
            documentation_base_url="https://docs.example/errors.md",
        )
    )


@pytest.fixture(scope="module")
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture(autouse=True)
def fresh(trail: Trail) -> None:
    trail.events.clear()
    trail.closed = False


def assert_safe(response: httpx.Response) -> None:
    """What holds of every error response, whatever caused it."""
    everything = response.text + repr(response.headers.raw)
    assert SECRET not in everything
    assert "Traceback" not in everything
    assert UUID(response.headers["X-Error-ID"])
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response.headers["X-Request-ID"])
    assert "no-store" in response.headers["Cache-Control"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Vary"] == "Accept"
    if response.status_code in {429, 503}:
        assert int(response.headers["Retry-After"]) >= 1
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"]
    body = response.json()
    assert body["error_id"] == response.headers["X-Error-ID"]
    assert {"error_code", "message", "timestamp", "recoverable"} <= body.keys()


@pytest.mark.parametrize("code", OURS)
def test_every_code_has_its_status_and_is_recorded_under_its_id(
    client: httpx.Client, trail: Trail, code: str
) -> None:
    response = client.get(f"/raise/{code}")
    assert_safe(response)
    assert response.status_code == lookup(code).http_status
    body = response.json()
    assert (body["error_code"], body["message"]) == (code, "a message of ours")
    assert body["request_tracking"]["documentation_url"].endswith(f"#{code.lower()}")
    assert {event.error_id for event in trail.events} == {body["error_id"]}


@pytest.mark.parametrize("path", ["/foreign", "/foreign-sync"])
def test_a_foreign_exception_is_an_internal_error_without_its_text(
    client: httpx.Client, trail: Trail, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get(f"{path}?patient=Roe", headers={"X-Request-ID": "id-1"})
    assert_safe(response)
    assert (response.status_code, response.json()["error_code"]) == (500, "INTERNAL_ERROR")
    assert response.headers["X-Request-ID"] == "id-1"
    (event,) = trail.events
    assert event.error_id == response.headers["X-Error-ID"]
    assert event.document["context"]["request_url"] == path
    assert "Roe" not in json.dumps(dict(event.document))
    # Starlette's own handler for Exception raises again, and uvicorn then logs the text with its stack.
    assert "Exception in ASGI application" not in caplog.text


def test_retry_after_is_what_the_error_says(client: httpx.Client) -> None:
    response = client.get("/wait")
    assert_safe(response)
    assert int(response.headers["Retry-After"]) in {6, 7}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 418, 429, 500, 503, 599])
def test_an_http_exception_keeps_its_status_and_loses_its_text(client: httpx.Client, status: int) -> None:
    response = client.get(f"/http/{status}")
    assert_safe(response)
    assert response.status_code == status
    assert response.headers["Allow"] == "PUT"
    assert "X-Leak" not in response.headers


def test_only_what_matters_to_security_or_is_our_fault_is_recorded(
    client: httpx.Client, trail: Trail
) -> None:
    for status in (401, 403, 500, 404, 405, 429):
        client.get(f"/http/{status}")
    client.get("/no/such/path")
    assert [event.error_code for event in trail.events if event.event_type == "error_handling"] == [
        "AUTH_ERROR",
        "AUTHZ_ERROR",
        "SERVICE_UNAVAILABLE",
    ]


def test_a_wrong_path_and_method_are_answered_in_the_same_shape(client: httpx.Client) -> None:
    missing = client.get("/no/such/path")
    assert_safe(missing)
    assert (missing.status_code, missing.json()["message"]) == (404, "Not Found")
    wrong = client.delete("/visits")
    assert_safe(wrong)
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")


def test_a_status_that_is_no_error_passes(client: httpx.Client) -> None:
    response = client.get("/not-modified")
    assert (response.status_code, response.headers["ETag"], response.content) == (304, "x", b"")


@pytest.mark.parametrize(
    ("content", "invalid"),
    [
        (json.dumps({"age": NAME}), {"location": "body.age", "rule": "int_type"}),
        (json.dumps({"age": -1}), {"location": "body.age", "rule": "greater_than_equal"}),
        (json.dumps({"age": 1, NAME: 2}), {"location": "body", "rule": "extra_forbidden"}),
        (json.dumps({"age": 1, "notes": ["a", 7]}), {"location": "body.notes.1", "rule": "string_type"}),
        (f'{{"{NAME}', {"location": "body.1", "rule": "json_invalid"}),
    ],
)
def test_an_invalid_request_is_told_the_place_and_the_rule_and_never_its_input(
    client: httpx.Client, trail: Trail, content: str, invalid: dict[str, str]
) -> None:
    response = client.post("/visits", content=content, headers={"Content-Type": "application/json"})
    assert_safe(response)
    assert (response.status_code, response.json()["error_code"]) == (400, "VALIDATION_ERROR")
    assert response.json()["invalid"] == [invalid]
    assert "Roe" not in response.text
    assert "Roe" not in json.dumps(dict(trail.events[0].document))


def test_a_body_that_is_no_text_is_refused(client: httpx.Client) -> None:
    response = client.post("/visits", content=b"\xff\xfe", headers={"Content-Type": "application/json"})
    assert_safe(response)
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        ("application/problem+json", True),
        ("Application/Problem+JSON; q=0.9, application/json; q=0.5", True),
        ("application/json, application/problem+json", True),
        ("application/problem+json;q=0.1, application/json", False),
        ("application/problem+json;q=0", False),
        ("application/problem+json;q=x", False),
        ("*/*", False),
        ("", False),
        (",;,=;q", False),
    ],
)
def test_problem_json_is_given_to_those_who_ask_for_it(
    client: httpx.Client, accept: str, problem: bool
) -> None:
    response = client.get("/foreign", headers={"Accept": accept})
    assert response.headers["Content-Type"] == ("application/problem+json" if problem else "application/json")
    if problem:
        body = response.json()
        assert (body["status"], body["title"]) == (500, "Internal error")
        assert body["type"] == "https://docs.example/errors.md#internal_error"
        assert body["instance"] == f"urn:uuid:{response.headers['X-Error-ID']}"


def test_problem_json_of_an_http_exception_has_its_own_status(client: httpx.Client) -> None:
    response = client.get("/http/418", headers={"Accept": "application/problem+json"})
    assert response.json()["status"] == response.status_code == 418


@given(st.text(max_size=200))
def test_any_accept_header_is_understood(accept: str) -> None:
    assert prefers_problem_json(accept) in {True, False}


@pytest.mark.parametrize("value", ["a b", "x" * 129, "a;b", "<script>"])
def test_a_request_id_that_could_forge_something_is_replaced(client: httpx.Client, value: str) -> None:
    response = client.get("/foreign", headers={"X-Request-ID": value})
    assert UUID(response.headers["X-Request-ID"])


@pytest.mark.parametrize("path", ["/foreign", "/no/such/path"])
def test_head_has_the_headers_of_get_and_no_body(client: httpx.Client, path: str) -> None:
    response = client.head(path)
    assert response.status_code in {404, 405}
    assert response.content == b""
    assert int(response.headers["Content-Length"]) > 0
    assert UUID(response.headers["X-Error-ID"])


def test_a_closed_fail_policy_answers_that_nothing_may_go_on(client: httpx.Client, trail: Trail) -> None:
    trail.closed = True
    response = client.get("/foreign")
    assert_safe(response)
    assert (response.status_code, response.json()["error_code"]) == (503, "AUDIT_UNAVAILABLE")


def test_an_error_after_the_first_byte_breaks_off_and_the_log_has_no_text_of_it(
    client: httpx.Client, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/stream")
    (event,) = trail.events
    raised = [record for record in caplog.records if record.exc_info]
    assert raised
    text = "\n".join(logging.Formatter().format(record) for record in raised)
    assert SECRET not in text
    assert str(event.error_id)


def test_an_error_of_a_background_task_is_recorded(client: httpx.Client, trail: Trail) -> None:
    assert client.get("/background").status_code == 200
    deadline = time.monotonic() + 5
    while not trail.events:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
    assert trail.events[0].error_code == "INTERNAL_ERROR"


def test_an_error_of_a_websocket_is_recorded_and_closes_it(app: FastAPI, trail: Trail) -> None:
    """Spoken by hand: no websocket library is needed to run the application."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/socket",
        "raw_path": b"/socket",
        "headers": [],
        "query_string": b"",
        "root_path": "",
        "scheme": "ws",
        "server": ("testserver", 80),
        "subprotocols": [],
        "client": None,
    }
    asyncio.run(app(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[-1]["code"] == 1011
    assert len(trail.events) == 1


def test_starlette_alone_is_served_as_well(trail: Trail) -> None:
    async def fail(request: object) -> PlainTextResponse:
        raise ServiceUnavailableError("down", service_name="ehr")

    handler = ErrorHandler(
        audit=trail,
        listeners=Listeners(),
        clock=SystemClock(),
        retention_days=1,
        documentation_base_url="errors.md",
    )
    bare = Starlette(routes=[Route("/", fail)])
    install(bare, handler)
    with serving(bare) as url:
        response = httpx.get(url)
    assert_safe(response)
    assert response.json()["error_code"] == "SERVICE_UNAVAILABLE"


def test_a_middleware_around_ours_is_answered_too(app: FastAPI, trail: Trail) -> None:
    handler = ErrorHandler(
        audit=trail,
        listeners=Listeners(),
        clock=SystemClock(),
        retention_days=1,
        documentation_base_url="errors.md",
    )

    class Outer:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                raise AuthenticationError("who is it?")
            await self.app(scope, receive, send)

    outer = FastAPI()
    install(outer, handler)
    outer.add_middleware(Outer)
    with serving(outer) as url:
        response = httpx.get(url)
    assert_safe(response)
    assert response.status_code == 401


# -- the OpenAPI document and schemathesis -----------------------------------------------------------


def test_the_openapi_document_shows_the_errors_and_not_fastapis_own(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    responses = document["paths"]["/visits"]["post"]["responses"]
    assert set(responses) == {"200", "default"}
    assert "application/problem+json" in responses["default"]["content"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/visits", GenerationMode.POSITIVE),
        ("/visits", GenerationMode.NEGATIVE),
        ("/raise/{code}", GenerationMode.POSITIVE),
        ("/http/{status}", GenerationMode.POSITIVE),
        ("/http/{status}", GenerationMode.NEGATIVE),
        ("/wait", GenerationMode.POSITIVE),
        ("/foreign", GenerationMode.POSITIVE),
    ],
)
def test_whatever_is_sent_the_answer_fits_the_document_and_is_safe(
    url: str, path: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operation = schema[path]["POST" if path == "/visits" else "GET"]

    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case[Any]) -> None:
        response = case.call()
        if response.status_code >= 400:
            headers = [(name, value) for name, values in response.headers.items() for value in values]
            assert_safe(httpx.Response(response.status_code, headers=headers, content=response.content))
        # Some of these routes exist to fail; what is checked is the shape of the failure.
        case.validate_response(response, excluded_checks=[not_a_server_error, positive_data_acceptance])

    call()
