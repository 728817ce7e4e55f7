"""Putting the web application together."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.requests import HTTPConnection

from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings
from techdeck_tasks.web import api, errors, pages
from techdeck_tasks.web.api import uploads
from techdeck_tasks.web.auth import SESSION_COOKIE, WebServices
from techdeck_tasks.web.headers import SecurityHeaders
from techdeck_tasks.web.limits import RequestLimits
from techdeck_tasks.web.pages.render import error_page
from techdeck_tasks.web.rate import seconds_to_wait, subjects_of
from techdeck_tasks.web.sessions import SessionStore
from techdeck_tasks.web.tokens import TokenStore

_DESCRIPTION = (
    "Start pipelines, watch them, act on breakers and failed tasks, search and prove the audit log. "
    "Each request carries a token: `Authorization: Bearer td_...`. "
    "Errors come in one shape, or as problem details (RFC 9457) for who accepts `application/problem+json`."
)


def create_web_app(source: Settings | Runtime | None = None) -> FastAPI:
    """Return the API and the dashboard as one ASGI application. Connects to nothing yet.

    Args:
        source: the settings, or a runtime that has an app; None: the settings of the environment.
    """
    runtime = source if isinstance(source, Runtime) else runtime_of(create_app(source))
    settings = runtime.settings
    app = FastAPI(
        title="techdeck",
        version=version("techdeck-tasks"),
        description=_DESCRIPTION,
        openapi_url=f"{api.PREFIX}/openapi.json",
        # Both would be fetched from another host.
        docs_url=None,
        redoc_url=None,
        # It would be to the host that the request names.
        redirect_slashes=False,
    )
    app.state.services = WebServices(
        runtime,
        TokenStore(runtime.engine, runtime.clock),
        SessionStore(runtime.redis, runtime.clock),
    )
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=str(files("techdeck_tasks.web") / "static")), name="static")
    app.add_api_route("/healthz", _alive, methods=["GET", "HEAD"], include_in_schema=False)

    def wait_for(connection: HTTPConnection) -> int:
        subjects = subjects_of(connection, SESSION_COOKIE, settings.web_requests_per_minute)
        return seconds_to_wait(runtime.redis, subjects)

    def max_body_bytes(connection: HTTPConnection) -> int:
        # Chunks are read only after the caller is known.
        chunk = connection.scope["method"] == "PATCH" and connection.url.path.startswith(uploads.PATH)
        return runtime.uploads.limits.max_chunk_bytes if chunk else settings.web_max_body_bytes

    # The last one added is the outermost.
    app.add_middleware(
        RequestLimits,
        wait_for=wait_for,
        max_body_bytes=max_body_bytes,
        timeout_s=settings.web_timeout_seconds,
    )
    errors.install(app, runtime.handler, error_page)
    app.add_middleware(SecurityHeaders)
    return app


def _alive() -> dict[str, str]:
    """Tell a load balancer that the process answers; asks no server."""
    return {"status": "alive"}
