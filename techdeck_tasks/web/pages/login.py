"""Logging in with a token, and out."""

from __future__ import annotations

import hmac
import secrets
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from techdeck_tasks.errors import AuthenticationError, AuthorizationError
from techdeck_tasks.web.auth import SESSION_COOKIE, ActingViewer, caller_of_session, services_of
from techdeck_tasks.web.pages.render import page
from techdeck_tasks.web.sessions import LONGEST

router = APIRouter()

_LOGIN_COOKIE = "techdeck_login"
"""Ties the login form to the browser it was sent to: there is no session yet."""


@router.get("/login")
def form(request: Request) -> Response:
    """Show the form."""
    if caller_of_session(request) is not None:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    return _form(request, HTTPStatus.OK, refused=False)


@router.post("/login")
def log_in(
    request: Request,
    token: Annotated[str, Form(max_length=200)] = "",
    csrf: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Open a session; both a login and a refusal are on record."""
    expected = request.cookies.get(_LOGIN_COOKIE, "")
    if not expected or not hmac.compare_digest(csrf.encode(), expected.encode()):
        raise AuthorizationError(
            "this form is not of your browser; open the page again", required_permission="csrf token"
        )
    services = services_of(request)
    found = services.tokens.find(token.strip())
    if found is None:
        services.runtime.handler.handle_error(
            AuthenticationError("a login with a token that is unknown, expired or revoked"),
            {
                "service": "web",
                "operation": "login",
                "client_ip": request.client.host if request.client else None,
            },
        )
        return _form(request, HTTPStatus.UNAUTHORIZED, refused=True)
    services.runtime.record_action("web", "login", found.name)
    services.sessions.close(request.cookies.get(SESSION_COOKIE, ""))
    session = services.sessions.open(found.token_id)
    response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    _set_cookie(request, response, SESSION_COOKIE, session.secret)
    response.delete_cookie(_LOGIN_COOKIE, path="/login")
    return response


@router.post("/logout")
def log_out(request: Request, caller: ActingViewer) -> Response:
    """End the session."""
    assert caller.session is not None
    services = services_of(request)
    services.runtime.record_action("web", "logout", caller.name)
    services.sessions.close(caller.session.secret)
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    response.delete_cookie(SESSION_COOKIE)
    return response


def _form(request: Request, status: int, *, refused: bool) -> HTMLResponse:
    csrf = secrets.token_urlsafe(32)
    response = page(request, "login.html", None, status=status, refused=refused, form_csrf=csrf)
    _set_cookie(request, response, _LOGIN_COOKIE, csrf, path="/login")
    return response


def _set_cookie(request: Request, response: Response, name: str, value: str, path: str = "/") -> None:
    response.set_cookie(
        name,
        value,
        max_age=int(LONGEST.total_seconds()),
        path=path,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
