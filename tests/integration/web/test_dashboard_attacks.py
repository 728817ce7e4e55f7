"""The dashboard under attack: markup in every field, sessions, odd requests, and servers that are away."""

from __future__ import annotations

import html
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.errors import HIPAAComplianceError, ServiceUnavailableError
from techdeck_tasks.runtime import create_app, runtime_of
from techdeck_tasks.settings import Settings
from techdeck_tasks.tasks.letters import LetterKind
from techdeck_tasks.web.app import create_web_app
from techdeck_tasks.web.auth import SESSION_COOKIE
from techdeck_tasks.web.pages.letters import PAGE
from techdeck_tasks.web.rate import LOGINS_PER_MINUTE
from techdeck_tasks.web.sessions import SessionStore

Serve = Callable[[FastAPI], AbstractContextManager[str]]

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' onfocus=alert(1)"
HTML = {"Accept": "text/html"}


@pytest.fixture(autouse=True)
def uncounted(site: Any) -> Iterator[None]:
    yield
    for key in site.runtime.redis.scan_iter("td:web:rate:*"):
        site.runtime.redis.delete(key)


@pytest.fixture
def browser(site: Any) -> Iterator[httpx.Client]:
    token = site.tokens.find(site.secrets["everybody"])
    session = SessionStore(site.runtime.redis, site.runtime.clock).open(token.token_id)
    with site.client(cookies={SESSION_COOKIE: session.secret}) as client:
        client.headers.update(HTML)
        yield client


def test_markup_is_text_in_every_field(
    site: Any,
    browser: httpx.Client,
    new_run: Callable[..., str],
    new_letter: Callable[..., Any],
    trip: Callable[[str], None],
    fail: Callable[..., str],
    evaluate: Callable[[], None],
) -> None:
    trip(MARKUP)
    site.runtime.breakers.get("overruled").manual_reset(owner=MARKUP, reason=MARKUP)
    for kind in LetterKind:
        new_letter(kind, task_name=MARKUP, requirements={MARKUP: MARKUP})
    site.runtime.quarantine.add(MARKUP, b"x", queue=MARKUP, headers={"task": MARKUP}, content_type=MARKUP)
    store, run_id = site.runtime.pipeline_store, new_run(str(uuid.uuid4()))
    store.fail_stage(run_id, "load", ServiceUnavailableError(MARKUP), "task")
    fail(HIPAAComplianceError(MARKUP), MARKUP)
    incident = site.incident()
    site.runtime.incidents.assign(incident.incident_id, assignee=MARKUP, by=MARKUP, note=MARKUP)
    evaluate()
    alert = next(alert for alert in site.runtime.alerts.search() if alert.subject == MARKUP)
    site.runtime.alerts.acknowledge(str(alert.alert_id), by=MARKUP, reason=MARKUP)
    silence = site.runtime.alerts.silence(
        alert_type=MARKUP, subject=MARKUP, period=timedelta(hours=1), by=MARKUP, reason=MARKUP
    )
    shown = 0
    for path in (
        "/",
        "/alerts",
        f"/alerts/{alert.alert_id}",
        "/runs",
        f"/runs/{run_id}",
        "/breakers",
        "/breakers/overruled",
        "/dead-letters",
        "/interventions",
        "/quarantine",
        "/audit",
        "/incidents",
    ):
        page = browser.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
        assert "\"' onfocus" not in page.text
        shown += "&lt;script&gt;alert" in page.text
    assert shown >= 9
    assert "<script" not in browser.get("/audit", params={"service": MARKUP}).text.replace(
        '<script src="/static/live.js" defer></script>', ""
    )
    site.runtime.alerts.unsilence(str(silence.silence_id), by="test", reason="test")


def test_a_session_is_new_at_each_login_whatever_cookie_was_there(site: Any) -> None:
    planted = "planted-by-an-attacker"
    with site.client(cookies={SESSION_COOKIE: planted}) as client:
        client.get("/login")
        form = {"token": site.secrets["operator"], "csrf": client.cookies["techdeck_login"]}
        answer = client.post("/login", data=form)
        assert answer.headers["Location"] == "/"
        (first,) = [cookie for cookie in answer.cookies.jar if cookie.name == SESSION_COOKIE]
    sessions = SessionStore(site.runtime.redis, site.runtime.clock)
    assert sessions.find(planted, keep_alive=False) is None
    assert first.value is not None
    assert sessions.find(first.value, keep_alive=False) is not None
    # Logging in again ends the session that was.
    with site.client(cookies={SESSION_COOKIE: first.value, "techdeck_login": "known"}) as client:
        assert client.post("/login", data={**form, "csrf": "known"}).status_code == 303
    assert sessions.find(first.value, keep_alive=False) is None


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "/login?next=//evil.example", "/runs/", "//evil.example/.."],
)
def test_nobody_is_sent_to_another_host(browser: httpx.Client, target: str) -> None:
    request = browser.build_request("GET", "/", headers={"Host": "evil.example"})
    request.url = request.url.copy_with(raw_path=target.encode())
    answer = browser.send(request)
    assert answer.status_code in (200, 303, 400, 404)
    assert answer.headers.get("Location", "/") == "/"


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=0",
        "limit=501",
        "limit=" + "9" * 30,
        "limit=1e2",
        "limit=%ff",
        "cursor=" + "A" * 60_000,
        "cursor=%ff%fe",
        "cursor=%00",
        "resolved=%c3%28",
        "hours=-5",
        "hours=99999999999",
        "state=nope",
        "state=" + "a" * 60_000,
        "service=" + "%f0%9f%a7%aa" * 500,
        "since=99999-01-01T00:00:00Z",
        "start=0001-01-01T00:00:00Z&end=9999-12-31T23:59:59Z",
        "&".join(f"a{number}=1" for number in range(5000)),
    ],
)
def test_an_odd_query_is_refused_or_ignored_and_breaks_nothing(
    site: Any, browser: httpx.Client, query: str
) -> None:
    with site.client("everybody") as client:
        for path in (
            "runs",
            "alerts",
            "errors",
            "audit",
            "statistics",
            "trend",
            "dead-letters",
            "quarantine",
        ):
            answer = client.get(f"/api/v1/{path}?{query}")
            assert answer.status_code in (200, 400), (path, answer.text)
    for path in ("/", "/runs", "/alerts", "/audit", "/incidents"):
        assert browser.get(f"{path}?{query}").status_code in (200, 400), path


def test_a_line_that_is_too_long_is_refused(site: Any, browser: httpx.Client) -> None:
    parts = urlsplit(site.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=15) as connection:
        with suppress(ConnectionError):  # it may be hung up on while it still sends
            connection.sendall(b"GET /runs?state=" + b"a" * 500_000)
        with suppress(ConnectionError):
            assert connection.recv(100).split()[1:2] in ([b"400"], [])
    assert browser.get("/runs").status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe=\xff&csrf=%ff", b"reason=%ff&hours=nan", b"=" * 1000, b"a=1&" * 5000, b"\x00", b"{}"],
)
def test_an_odd_form_is_refused(browser: httpx.Client, body: bytes) -> None:
    for path in ("/alerts/silences", "/audit/verify", "/login", "/breakers/lab", "/schedules/a/remove"):
        answer = browser.post(
            path, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert answer.status_code in (400, 403), path


def test_logins_are_few_a_minute(site: Any) -> None:
    with site.client() as client:
        client.get("/login")
        form = {"token": "td_guess", "csrf": client.cookies["techdeck_login"]}
        # Each refusal renews the form's cookie.
        statuses = []
        for _ in range(LOGINS_PER_MINUTE + 3):
            statuses.append(client.post("/login", data=form).status_code)
            form["csrf"] = client.cookies["techdeck_login"]
    assert statuses == [401] * LOGINS_PER_MINUTE + [429] * 3


@pytest.mark.parametrize(
    "forwarded",
    [
        lambda number: f"198.51.100.{number}, 203.0.113.9",
        lambda number: f"2001:db8:0:1:{number:x}::1",
        lambda number: f"198.51.100.{number}, 2001:db8:0:1::{number:x}",
    ],
)
def test_made_up_addresses_do_not_evade_the_limit(site: Any, forwarded: Callable[[int], str]) -> None:
    with site.client() as client:
        statuses = [
            client.post("/login", headers={"X-Forwarded-For": forwarded(number)}).status_code
            for number in range(LOGINS_PER_MINUTE + 2)
        ]
    assert statuses == [403] * LOGINS_PER_MINUTE + [429] * 2


def test_who_is_no_proxy_of_ours_cannot_choose_an_address(
    site: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    with serve(create_web_app(site.runtime)) as url:
        statuses = [
            httpx.post(f"{url}/login", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(LOGINS_PER_MINUTE + 2)
        ]
    assert statuses == [403] * LOGINS_PER_MINUTE + [429] * 2


@pytest.mark.parametrize("path", ["/", "/runs", "/audit", "/alerts", "/login", "/api/v1/runs"])
def test_nothing_that_was_shown_is_kept_by_caches(browser: httpx.Client, path: str) -> None:
    assert browser.get(path).headers["Cache-Control"].split(", ").count("no-store") == 1


@pytest.mark.parametrize("away", ["redis_url", "database_url"])
def test_a_server_that_is_away_has_a_page_that_says_so(
    site: Any, site_settings: Settings, serve: Serve, browser: httpx.Client, away: str
) -> None:
    nowhere = {
        "redis_url": f"redis://127.0.0.1:{free_port()}/0",
        "database_url": f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none",
    }
    settings = site_settings.model_validate(site_settings.model_dump() | {away: nowhere[away]})
    runtime = runtime_of(create_app(settings))
    with serve(create_web_app(runtime)) as url:
        page = browser.get(f"{url}/")
        api = httpx.get(
            f"{url}/api/v1/runs", headers={"Authorization": f"Bearer {site.secrets['operator']}"}, timeout=20
        )
    runtime.engine.dispose()
    assert page.status_code == 503
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["X-Error-ID"] in page.text
    assert "Traceback" not in page.text
    assert "127.0.0.1" not in page.text
    # Runs are in PostgreSQL: without Redis the API still tells of them.
    assert api.status_code == (200 if away == "redis_url" else 503)


@pytest.mark.parametrize(
    ("who", "path", "status"), [("submitter", "/audit", 403), ("everybody", "/nothing", 404)]
)
def test_an_error_is_a_page_with_its_id(site: Any, who: str, path: str, status: int) -> None:
    token = site.tokens.find(site.secrets[who])
    session = SessionStore(site.runtime.redis, site.runtime.clock).open(token.token_id)
    with site.client(cookies={SESSION_COOKIE: session.secret}) as client:
        client.headers.update(HTML)
        page = client.get(path)
    assert page.status_code == status
    assert page.headers["X-Error-ID"] in page.text
    assert "Back to the overview" in page.text


def test_what_failed_for_good_is_shown_page_by_page(
    browser: httpx.Client, new_letter: Callable[..., Any]
) -> None:
    made = {new_letter(task_name="paged.task").letter_id for _ in range(PAGE + 5)}
    seen: set[str] = set()
    path: str | None = "/dead-letters"
    while path is not None:
        shown = browser.get(path).text
        seen |= set(re.findall(r'action="/dead-letters/([0-9a-f-]{36})/replay"', shown))
        older = re.search(r'href="(/dead-letters\?cursor=[^"]+)"', shown)
        path = html.unescape(older[1]) if older else None
    assert made <= seen
