"""Who may do what: every route of the API and of the dashboard, by every way of not being allowed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.web import api, pages
from techdeck_tasks.web.auth import SESSION_COOKIE
from techdeck_tasks.web.sessions import SessionStore
from techdeck_tasks.web.tokens import Role, TokenStore

ALL = set(Role)
STARTS = {Role.SUBMITTER, Role.OPERATOR}
OPERATES = {Role.OPERATOR}
AUDITS = {Role.AUDITOR}
OVERSEES = {Role.OPERATOR, Role.AUDITOR}

API = {
    "POST /api/v1/runs": STARTS,
    "POST /api/v1/runs/reconcile": OPERATES,
    "GET /api/v1/runs": ALL,
    "GET /api/v1/runs/{run_id}": ALL,
    "POST /api/v1/runs/{run_id}/cancel": STARTS,
    "POST /api/v1/runs/{run_id}/resume": STARTS,
    "POST /api/v1/uploads": STARTS,
    "GET /api/v1/uploads": STARTS,
    "GET /api/v1/uploads/{upload_id}": STARTS,
    "HEAD /api/v1/uploads/{upload_id}": STARTS,
    "PATCH /api/v1/uploads/{upload_id}": STARTS,
    "POST /api/v1/uploads/{upload_id}/complete": STARTS,
    "DELETE /api/v1/uploads/{upload_id}": STARTS,
    "GET /api/v1/schedules": ALL,
    "POST /api/v1/schedules": STARTS,
    "DELETE /api/v1/schedules/{name}": STARTS,
    "GET /api/v1/quarantine": OPERATES,
    "POST /api/v1/quarantine/{message_id}/replay": OPERATES,
    "DELETE /api/v1/quarantine/{message_id}": OPERATES,
    "GET /api/v1/breakers": ALL,
    "GET /api/v1/breakers/{name:path}": ALL,
    "POST /api/v1/breakers/{name:path}": OPERATES,
    "GET /api/v1/statistics": ALL,
    "GET /api/v1/trend": ALL,
    "GET /api/v1/alert-conditions": ALL,
    "GET /api/v1/alerts": ALL,
    "GET /api/v1/alerts/{alert_id}": ALL,
    "POST /api/v1/alerts/{alert_id}/acknowledge": OPERATES,
    "GET /api/v1/silences": ALL,
    "POST /api/v1/silences": OPERATES,
    "DELETE /api/v1/silences/{silence_id}": OPERATES,
    "GET /api/v1/retries": ALL,
    "GET /api/v1/dead-letters": OPERATES,
    "POST /api/v1/dead-letters/{letter_id}/replay": OPERATES,
    "DELETE /api/v1/dead-letters/{letter_id}": OPERATES,
    "GET /api/v1/interventions": OPERATES,
    "POST /api/v1/interventions/{letter_id}/resolve": OPERATES,
    "DELETE /api/v1/interventions/{letter_id}": OPERATES,
    "GET /api/v1/errors": OVERSEES,
    "GET /api/v1/audit": AUDITS,
    "POST /api/v1/audit/verify": AUDITS,
    "GET /api/v1/reports": AUDITS,
    "POST /api/v1/reports": AUDITS,
    "GET /api/v1/reports/{report_id}": AUDITS,
    "POST /api/v1/reports/{report_id}/sign-off": AUDITS,
    "GET /api/v1/incidents": OVERSEES,
    "GET /api/v1/incidents/{incident_id}": OVERSEES,
    "POST /api/v1/incidents/{incident_id}/assign": AUDITS,
    "POST /api/v1/incidents/{incident_id}/resolve": AUDITS,
    "POST /api/v1/incidents/{incident_id}/dismiss": AUDITS,
}
PAGES = {
    "GET /": ALL,
    "GET /runs": ALL,
    "GET /runs/{run_id}": ALL,
    "GET /breakers": ALL,
    "GET /breakers/{name:path}": ALL,
    "GET /alerts": ALL,
    "GET /alerts/{alert_id}": ALL,
    "GET /schedules": ALL,
    "GET /quarantine": OPERATES,
    "GET /dead-letters": OPERATES,
    "GET /interventions": OPERATES,
    "GET /audit": AUDITS,
    "GET /reports": AUDITS,
    "GET /reports/{report_id}": AUDITS,
    "GET /reports/{report_id}/document": AUDITS,
    "GET /incidents": OVERSEES,
}
FORMS = {
    "POST /runs/{run_id}/cancel": STARTS,
    "POST /runs/{run_id}/resume": STARTS,
    "POST /breakers/{name:path}": OPERATES,
    "POST /schedules/{name}/remove": STARTS,
    "POST /quarantine/{message_id}/replay": OPERATES,
    "POST /quarantine/{message_id}/drop": OPERATES,
    "POST /alerts/{alert_id}/acknowledge": OPERATES,
    "POST /alerts/silences": OPERATES,
    "POST /alerts/silences/{silence_id}/end": OPERATES,
    "POST /dead-letters/{letter_id}/replay": OPERATES,
    "POST /dead-letters/{letter_id}/drop": OPERATES,
    "POST /interventions/{letter_id}/resolve": OPERATES,
    "POST /interventions/{letter_id}/drop": OPERATES,
    "POST /audit/verify": AUDITS,
    "POST /reports": AUDITS,
    "POST /reports/{report_id}/sign-off": AUDITS,
    "POST /incidents/{incident_id}": AUDITS,
    "POST /logout": ALL,
}
BEFORE_LOGIN = {"GET /login", "POST /login"}

BODIES: dict[str, Any] = {
    "POST /api/v1/runs": {"name": "a"},
    "POST /api/v1/uploads": {"filename": "a.csv", "size_bytes": 1, "sha256": "0" * 64},
    "POST /api/v1/breakers/{name:path}": {"action": "reset", "reason": "a"},
    "POST /api/v1/schedules": {"definition": {"name": "a"}, "reason": "a"},
    "POST /api/v1/silences": {"subject": "access", "hours": 1, "reason": "a"},
    "POST /api/v1/reports": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"},
    "POST /api/v1/reports/{report_id}/sign-off": {"note": "a"},
    "POST /api/v1/incidents/{incident_id}/assign": {"note": "a", "assignee": "b"},
    "POST /api/v1/incidents/{incident_id}/resolve": {"note": "a", "secured": True},
    "POST /api/v1/incidents/{incident_id}/dismiss": {"note": "a"},
}
FORM = {
    "action": "reset",
    "reason": "a",
    "note": "a",
    "decision": "take",
    "hours": "1",
    "sha256": "0" * 64,
    "first": "2026-01-01",
    "last": "2026-01-02",
}


def routes_of(router: Any, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for route in router.routes:
        if isinstance(route, APIRoute):
            found |= {f"{method} {prefix}{route.path}" for method in route.methods or ()}
        else:
            found |= routes_of(route.original_router, prefix)
    return found


def address(route: str) -> tuple[str, str]:
    """Return method and path, with values in place of the parameters."""
    method, _, path = route.partition(" ")
    filled = (
        path.replace("{name:path}", "lab").replace("{name}", "lab").replace("{run_id}", str(uuid.uuid4()))
    )
    filled = filled.replace("{upload_id}", uuid.uuid4().hex)
    for name in ("letter_id", "report_id", "incident_id", "alert_id", "silence_id", "message_id"):
        filled = filled.replace(f"{{{name}}}", "abcdef")
    return method, filled


def ask(client: httpx.Client, route: str, **options: Any) -> httpx.Response:
    method, path = address(route)
    if method == "POST" and route in API:
        options["json"] = BODIES.get(route, {"reason": "a"})
    if method == "DELETE":
        options["params"] = {"reason": "a"}
    return client.request(method, path, **options)


def assert_refused(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    if response.request.method == "HEAD":
        return
    assert response.json()["error_code"] == code
    assert "Traceback" not in response.text


@pytest.fixture(autouse=True)
def uncounted(site: Any) -> None:
    for key in site.runtime.redis.scan_iter("td:web:rate:*"):
        site.runtime.redis.delete(key)


@pytest.fixture
def sessions(site: Any) -> SessionStore:
    return SessionStore(site.runtime.redis, site.runtime.clock)


@pytest.fixture
def browse(site: Any, sessions: SessionStore) -> Iterator[Any]:
    """Return a client with a session of `who`, and that session's CSRF token."""
    opened = []

    def browse(who: str) -> tuple[httpx.Client, str]:
        token = site.tokens.find(site.secrets[who])
        session = sessions.open(token.token_id)
        client = site.client(cookies={SESSION_COOKIE: session.secret})
        opened.append(client)
        return client, session.csrf

    yield browse
    for client in opened:
        client.close()


def test_no_route_is_left_out_here() -> None:
    assert routes_of(api.router, api.PREFIX) == API.keys()
    assert routes_of(pages.router) == PAGES.keys() | FORMS.keys() | BEFORE_LOGIN


@pytest.mark.parametrize("route", API)
def test_an_api_route_wants_a_token(site: Any, route: str) -> None:
    with site.client() as client:
        response = ask(client, route)
        assert_refused(response, 401, "AUTH_ERROR")
        assert response.headers["WWW-Authenticate"]
        for shown in ("Bearer td_wrong", "Basic dGQ6dGQ=", "Bearer", f"bearer {'x' * 5000}"):
            assert ask(client, route, headers={"Authorization": shown}).status_code == 401


@pytest.mark.parametrize("route", [route for route, roles in API.items() if roles != ALL])
def test_an_api_route_wants_its_role(site: Any, route: str) -> None:
    for role in Role:
        with site.client(role) as client:
            response = ask(client, route)
        if role in API[route]:
            assert response.status_code not in (401, 403)
            assert response.status_code < 500
        else:
            assert_refused(response, 403, "AUTHZ_ERROR")


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_a_token_that_ended_opens_nothing(site: Any, end: str) -> None:
    class Earlier(SystemClock):
        def now(self) -> Any:
            return super().now() - timedelta(hours=2)

    name = f"past-{end}"
    store = TokenStore(site.runtime.engine, Earlier() if end == "expired" else SystemClock())
    _, secret = store.create(name, list(Role), timedelta(hours=1), "test")
    if end == "revoked":
        with site.client() as client:
            shown = {"Authorization": f"Bearer {secret}"}
            assert client.get("/api/v1/runs", headers=shown).status_code == 200
        site.tokens.revoke(name)
    (token,) = [token for token in site.tokens.list() if token.name == name]
    assert token.state(SystemClock().now()) == end
    with site.client() as client:
        for route in API:
            response = ask(client, route, headers={"Authorization": f"Bearer {secret}"})
            assert response.status_code in (401, 429)


@pytest.mark.parametrize("route", [*PAGES, *FORMS])
def test_a_page_wants_a_session(site: Any, route: str) -> None:
    method, path = address(route)
    for cookie in (None, "made-up"):
        with site.client(cookies={SESSION_COOKIE: cookie} if cookie else {}) as client:
            response = client.request(method, path, data=FORM if method == "POST" else None)
        assert (response.status_code, response.headers["Location"]) == (303, "/login")


@pytest.mark.parametrize("route", [route for route, roles in PAGES.items() if roles != ALL])
def test_a_page_wants_its_role(route: str, browse: Any) -> None:
    for role in Role:
        client, _ = browse(role)
        status = client.get(address(route)[1]).status_code
        assert (status == 403) == (role not in PAGES[route])


@pytest.mark.parametrize("route", FORMS)
def test_a_form_wants_its_role_and_the_token_of_its_session(route: str, browse: Any, site: Any) -> None:
    _, path = address(route)
    client, _ = browse("everybody")
    _, foreign = browse("everybody")
    for csrf in (None, "", "made-up", foreign, "ü"):
        response = client.post(path, data={**FORM, **({} if csrf is None else {"csrf": csrf})})
        assert_refused(response, 403, "AUTHZ_ERROR")
    for role in set(Role) - FORMS[route]:
        client, csrf = browse(role)
        assert_refused(client.post(path, data={**FORM, "csrf": csrf}), 403, "AUTHZ_ERROR")
    site.runtime.redis.delete("td:web:rate:{web}:refused:127.0.0.1")


def test_a_login_form_of_another_browser_is_refused(site: Any) -> None:
    token = {"token": site.secrets["operator"]}
    with site.client() as client:
        assert client.post("/login", data=token).status_code == 403
        client.get("/login")
        assert client.post("/login", data={**token, "csrf": "made-up"}).status_code == 403


def test_the_session_cookie_is_kept_from_scripts_and_other_sites(site: Any) -> None:
    with site.client() as client:
        page = client.get("/login")
        csrf = client.cookies["techdeck_login"]
        assert csrf in page.text
        response = client.post("/login", data={"token": site.secrets["operator"], "csrf": csrf})
        cookie = next(
            value for value in response.headers.get_list("set-cookie") if value.startswith(SESSION_COOKIE)
        )
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        # Not the token itself, and Redis does not hold the cookie either.
        assert site.secrets["operator"] not in cookie
        secret = client.cookies[SESSION_COOKIE]
        assert not [key for key in site.runtime.redis.scan_iter() if secret.encode() in key]
        assert client.get("/runs").status_code == 200
    with site.client() as client:
        behind_tls = client.get("/login", headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in behind_tls.headers["set-cookie"]


def test_a_session_ends_by_itself_and_live_questions_do_not_prolong_it(
    site: Any, sessions: SessionStore
) -> None:
    token = site.tokens.find(site.secrets["operator"])
    session = sessions.open(token.token_id)
    (key,) = [
        key
        for key in site.runtime.redis.scan_iter("td:web:session:*")
        if session.csrf.encode() in site.runtime.redis.get(key)
    ]
    site.runtime.redis.expire(key, 100)
    with site.client(cookies={SESSION_COOKIE: session.secret}) as client:
        assert client.get("/runs", headers={"X-Techdeck-Live": "1"}).status_code == 200
        assert site.runtime.redis.ttl(key) <= 100
        assert client.get("/runs").status_code == 200
        assert site.runtime.redis.ttl(key) > 100
        site.runtime.redis.delete(key)
        assert client.get("/runs").status_code == 303


def test_the_database_holds_no_secret(site: Any) -> None:
    with site.runtime.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT t::text FROM api_token t").scalars().all()
    assert rows
    for secret in site.secrets.values():
        assert not [row for row in rows if secret in row or secret.removeprefix("td_") in row]
