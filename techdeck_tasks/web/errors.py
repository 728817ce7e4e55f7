"""Error responses over HTTP: every failure of a FastAPI or Starlette application answers in one shape.

The body is the specification's response, or, where the caller prefers ``application/problem+json``, the same
as problem details (RFC 9457). No stack trace, input value or text of a foreign exception is ever in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.errors.response import PROBLEM_JSON, problem_details
from techdeck_tasks.errors.text import declared_parts
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.redaction import sanitize_message

logger = logging.getLogger(__name__)

_MAX_HEADER_LENGTH = 1000
_MAX_PROBLEMS = 20
_KEPT_HEADERS = ("allow", "connection", "www-authenticate", "retry-after", "upload-offset")
_OWN_SERVERS = {"postgresql": "PostgreSQL", "redis": "Redis"}
_LOWEST_ERROR = 400
_RECORDED_STATUS = frozenset({401, 403})
_LOWEST_SERVER_ERROR = 500
_CLOSE_INTERNAL_ERROR = 1011

ErrorPage = Callable[[Request, int, Mapping[str, Any]], Response]
"""Makes the page a person sees, of the request, the status and the safe body."""


def install(app: FastAPI | Starlette, handler: ErrorHandler, page: ErrorPage | None = None) -> None:
    """Let every error of `app` go through `handler`. Call it once, before the application starts.

    Where a caller accepts ``text/html``, as browsers do, it gets what `page` makes; without it, JSON.

    Errors of routes are caught by a middleware and not by Starlette's own handler for `Exception`: that one
    raises again after it answered, and the server would log the foreign text with its stack.
    """

    async def on_http_exception(request: Request, error: Exception) -> Response:
        return await _http_exception(handler, request, error)

    async def on_invalid_request(request: Request, error: Exception) -> Response:
        return await _invalid_request(handler, request, error)

    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, _BrokenOffError):
            return Response(status_code=_LOWEST_SERVER_ERROR)  # handled; and nothing can be sent any more
        return await _respond(handler, request, error)

    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(Exception, on_error)  # for what a middleware around ours raises
    app.add_middleware(_ErrorMiddleware, handler=handler)
    app.state.error_page = page
    if isinstance(app, FastAPI):
        _document_errors(app)


class _BrokenOffError(Exception):
    def __init__(self, error_id: str) -> None:
        super().__init__(f"the response broke off, error_id={error_id}")


class _ErrorMiddleware:
    """Answers where the application raised. Pure ASGI: streams and background tasks stay as they are."""

    def __init__(self, app: ASGIApp, handler: ErrorHandler) -> None:
        self._app = app
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as error:  # noqa: BLE001 - every error has an answer
            if scope["type"] == "websocket":
                await _record(self._handler, HTTPConnection(scope), error)
                await send({"type": "websocket.close", "code": _CLOSE_INTERNAL_ERROR})
                return
            response = await self._answer(Request(scope), error)
            if begun:
                # The status is sent: only breaking off tells the caller. The server logs what is raised.
                raise _BrokenOffError(response.headers["X-Error-ID"]) from None
            await response(scope, receive, send)

    async def _answer(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # of another middleware: the application answers its own
            return await _http_exception(self._handler, request, error)
        return await _respond(self._handler, request, error)


async def _respond(handler: ErrorHandler, request: Request, error: Exception) -> Response:
    status, headers, body = await _record(handler, request, error)
    server = error.details.get("service_name") if isinstance(error, TechDeckError) else None
    if server in _OWN_SERVERS:
        # Where our servers are is for the log: whoever calls may have no token yet.
        body = {**body, "message": f"{_OWN_SERVERS[server]} does not answer at the moment"}
    return _render(request, status, headers, body)


async def _record(
    handler: ErrorHandler, connection: HTTPConnection, error: Exception
) -> tuple[int, dict[str, str], dict[str, Any]]:
    facts = _facts(connection)
    try:
        return await handler.ahandle_api_error(error, facts)
    except AuditUnavailableError as unavailable:
        logger.critical("error_id=%s: no answer without a record", unavailable.error_id)
        return handler.answer_api_error(unavailable, facts)


async def _http_exception(handler: ErrorHandler, request: Request, error: Exception) -> Response:
    status: int = getattr(error, "status_code", _LOWEST_SERVER_ERROR)
    given: Mapping[str, str] = getattr(error, "headers", None) or {}
    if status < _LOWEST_ERROR:
        return Response(status_code=status, headers=dict(given))
    if status in _RECORDED_STATUS or status >= _LOWEST_SERVER_ERROR:
        _, headers, body = await _record(handler, request, error)
    else:
        _, headers, body = handler.answer_api_error(error, _facts(request))
    kept = {name: value for name, value in given.items() if name.lower() in _KEPT_HEADERS}
    named = {name.lower() for name in kept}
    headers = {name: value for name, value in headers.items() if name.lower() not in named} | kept
    # `detail` is free text, often that of a foreign exception: who wants to say more raises an error of ours.
    return _render(request, status, headers, {**body, "message": _phrase(status, body["message"])})


async def _invalid_request(handler: ErrorHandler, request: Request, error: Exception) -> Response:
    status, headers, body = await _record(handler, request, error)
    problems: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    invalid = [
        {"location": _location(problem), "rule": str(problem.get("type", "invalid"))}
        for problem in problems[:_MAX_PROBLEMS]
    ]
    return _render(request, status, headers, {**body, "invalid": invalid})


def _location(problem: Mapping[str, Any]) -> str:
    places = declared_parts(problem)
    # A part may be a key of the caller's own data, so it is redacted like any text.
    return ".".join(
        str(place) if isinstance(place, int) else sanitize_message(str(place)[:100]) for place in places
    )


def _phrase(status: int, fallback: str) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return fallback


def _facts(connection: HTTPConnection) -> dict[str, Any]:
    # The query is left out: its values are the caller's.
    return {
        "request_method": str(connection.scope.get("method", "WEBSOCKET"))[:16],
        "request_url": connection.url.path[:_MAX_HEADER_LENGTH],
        "client_ip": connection.client.host if connection.client else None,
        "user_agent": connection.headers.get("user-agent", "")[:_MAX_HEADER_LENGTH],
        "request_id": connection.headers.get("x-request-id"),
    }


def _render(request: Request, status: int, headers: Mapping[str, str], body: dict[str, Any]) -> Response:
    accept = request.headers.get("accept", "")
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    if page is not None and "text/html" in accept[:_MAX_HEADER_LENGTH].lower():
        response = page(request, status, body)
        response.headers.update({**headers, "Vary": "Accept"})
        return response
    problem = prefers_problem_json(accept)
    content = json.dumps(problem_details(body, status) if problem else body, allow_nan=False).encode()
    response = Response(content, status, media_type=PROBLEM_JSON if problem else "application/json")
    response.headers.update({**headers, "Vary": "Accept", "X-Content-Type-Options": "nosniff"})
    if request.method == "HEAD":
        response.body = b""  # Content-Length stays that of the body a GET would have: RFC 9110 section 9.3.2
    return response


def prefers_problem_json(accept: str) -> bool:
    """Whether an Accept header names ``application/problem+json`` and does not rank JSON above it."""
    weights = {"application/json": 0.0, PROBLEM_JSON: 0.0}
    for part in accept[:_MAX_HEADER_LENGTH].lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type in weights:
            weights[media_type] = _weight(parameters)
    return weights[PROBLEM_JSON] > 0 and weights[PROBLEM_JSON] >= weights["application/json"]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Error",
    "required": ["error_id", "error_code", "message", "timestamp", "recoverable"],
    "properties": {
        "error_id": {"type": "string", "format": "uuid"},
        "error_code": {"type": "string"},
        "message": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "recoverable": {"type": "boolean"},
        "recovery_attempted": {"type": "boolean"},
        "recovery_successful": {"type": "boolean"},
        "recovery_message": {"type": "string"},
        "user_guidance": {"type": "string"},
        "request_tracking": {
            "type": "object",
            "properties": {
                "retry_allowed": {"type": "boolean"},
                "support_reference": {"type": "string"},
                "documentation_url": {"type": "string"},
            },
        },
        "invalid": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"location": {"type": "string"}, "rule": {"type": "string"}},
            },
        },
        "fail_safe_mode": {"type": "boolean"},
        "support_reference": {"type": "string"},
    },
}


def _document_errors(app: FastAPI) -> None:
    """Let the OpenAPI document say what errors look like, in place of FastAPI's own 422."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["Error"] = _ERROR_SCHEMA
            if schemas.pop("HTTPValidationError", None) is not None:
                schemas.pop("ValidationError", None)
            for path in schema.get("paths", {}).values():
                for operation in path.values():
                    responses = operation.setdefault("responses", {})
                    if "HTTPValidationError" in str(responses.get("422")):
                        del responses["422"]
                    responses.setdefault(
                        "default",
                        {
                            "description": "Error",
                            "content": {
                                "application/json": {"schema": {"$ref": "#/components/schemas/Error"}},
                                PROBLEM_JSON: {"schema": {"type": "object"}},
                            },
                        },
                    )
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to change the document
