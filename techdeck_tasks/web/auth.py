"""Who calls, and what they may: bearer tokens for the API, sessions for the dashboard."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import Depends, Form, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from techdeck_tasks.errors import AuthenticationError, AuthorizationError
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.web.rate import refusals_of, seconds_to_wait
from techdeck_tasks.web.sessions import Session, SessionStore
from techdeck_tasks.web.tokens import Role, Token, TokenStore

SESSION_COOKIE = "techdeck_session"
LIVE_HEADER = "x-techdeck-live"
"""Marks what a page asks for by itself: it must not keep a session alive."""

_bearer = HTTPBearer(auto_error=False, description="A token of `techdeck token create`.")


@dataclass(frozen=True, slots=True)
class WebServices:
    """What requests work with."""

    runtime: Runtime
    tokens: TokenStore
    sessions: SessionStore


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `session` is None over the API."""

    token: Token
    session: Session | None = None

    @property
    def name(self) -> str:
        """The actor, as the audit log names it."""
        return self.token.name

    def has(self, *roles: Role) -> bool:
        """Whether the caller has one of `roles`; none given: whoever has a token."""
        return not roles or not self.token.roles.isdisjoint(roles)


def services_of(request: Request) -> WebServices:
    """Return what the application was made with."""
    return cast("WebServices", request.app.state.services)


def runtime_of_request(request: Request) -> Runtime:
    """Return the process's runtime."""
    return services_of(request).runtime


RuntimeOf = Annotated[Runtime, Depends(runtime_of_request)]


def _bearer_with(*roles: Role) -> Callable[..., Caller]:
    def authenticate(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Caller:
        token = services_of(request).tokens.find(credentials.credentials) if credentials else None
        if token is None:
            # Each refusal is on record, and a security incident: nobody may fill the log with them.
            wait_s = seconds_to_wait(services_of(request).runtime.redis, [refusals_of(request)])
            if wait_s:
                raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": str(wait_s)})
            # In the header's own spelling the redaction would cut it off.
            raise AuthenticationError(
                "this needs a valid token: td_..., in the header Authorization, after the word Bearer"
            )
        return _permitted(Caller(token), roles)

    return authenticate


def _session_with(*roles: Role) -> Callable[..., Caller]:
    def authenticate(request: Request) -> Caller:
        caller = caller_of_session(request)
        if caller is None:
            raise HTTPException(HTTPStatus.SEE_OTHER, headers={"Location": "/login"})
        return _permitted(caller, roles)

    return authenticate


def _form_with(*roles: Role) -> Callable[..., Caller]:
    signed_in = _session_with(*roles)

    def authenticate(request: Request, csrf: Annotated[str, Form(max_length=200)] = "") -> Caller:
        caller = signed_in(request)
        assert caller.session is not None
        if not hmac.compare_digest(csrf.encode(), caller.session.csrf.encode()):
            raise AuthorizationError(
                "this form is not of your session; open the page again", required_permission="csrf token"
            )
        return caller

    return authenticate


def caller_of_session(request: Request) -> Caller | None:
    """Return who is logged in; None for nobody, after a time of idleness, and after the token's end."""
    secret = request.cookies.get(SESSION_COOKIE)
    if not secret:
        return None
    services = services_of(request)
    session = services.sessions.find(secret, keep_alive=LIVE_HEADER not in request.headers)
    if session is None:
        return None
    token = services.tokens.get(session.token_id)
    return None if token is None else Caller(token, session)


def _permitted(caller: Caller, roles: tuple[Role, ...]) -> Caller:
    if not caller.has(*roles):
        raise AuthorizationError(
            f"this needs a token with the role {' or '.join(roles)}",
            user_id=caller.name,
            required_permission=" or ".join(roles),
        )
    return caller


STARTS = (Role.SUBMITTER, Role.OPERATOR)
OVERSEES = (Role.OPERATOR, Role.AUDITOR)

Anyone = Annotated[Caller, Depends(_bearer_with())]
Submitter = Annotated[Caller, Depends(_bearer_with(*STARTS))]
Operator = Annotated[Caller, Depends(_bearer_with(Role.OPERATOR))]
Auditor = Annotated[Caller, Depends(_bearer_with(Role.AUDITOR))]
Overseer = Annotated[Caller, Depends(_bearer_with(*OVERSEES))]

Viewer = Annotated[Caller, Depends(_session_with())]
ViewingOperator = Annotated[Caller, Depends(_session_with(Role.OPERATOR))]
ViewingAuditor = Annotated[Caller, Depends(_session_with(Role.AUDITOR))]
ViewingOverseer = Annotated[Caller, Depends(_session_with(*OVERSEES))]

ActingViewer = Annotated[Caller, Depends(_form_with())]
ActingSubmitter = Annotated[Caller, Depends(_form_with(*STARTS))]
ActingOperator = Annotated[Caller, Depends(_form_with(Role.OPERATOR))]
ActingAuditor = Annotated[Caller, Depends(_form_with(Role.AUDITOR))]
