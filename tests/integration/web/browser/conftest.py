"""A real Chromium, the distribution's own; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from techdeck_tasks.web.auth import SESSION_COOKIE
from techdeck_tasks.web.sessions import SessionStore


@pytest.fixture(scope="module")
def browser(program: Callable[[str], str]) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"),
            # Root has no sandbox of its own, and containers have a small /dev/shm.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Any) -> Iterator[Page]:
    """A page whose console must stay silent and that may ask no other host."""
    context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    host = urlsplit(site.url).netloc

    def on_console(message: Any) -> None:
        # A browser itself reports an answer of 4xx; that one may be what a test is about.
        if (
            message.type in ("error", "warning")
            and "the server responded with a status of 4" not in message.text
        ):
            complaints.append(message.text)

    def on_request(request: Any) -> None:
        if urlsplit(request.url).netloc != host:
            complaints.append(f"asked {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", on_request)
    yield page
    context.close()
    assert not complaints


@pytest.fixture
def log_in(page: Page, site: Any) -> Callable[..., None]:
    """Opens the overview in a session of `who`; logging in by hand is limited to a few a minute."""

    def log_in(who: str = "everybody") -> None:
        token = site.tokens.find(site.secrets[who])
        session = SessionStore(site.runtime.redis, site.runtime.clock).open(token.token_id)
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": session.secret, "url": site.url}])
        page.goto("/")

    return log_in
