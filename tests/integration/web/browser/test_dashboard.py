"""What an operator and an auditor do with their hands, in a real browser."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from techdeck_tasks.errors import EncryptionError, ServiceUnavailableError, ValidationError
from techdeck_tasks.web.tokens import Role

pytestmark = pytest.mark.needs_program("chromium")

LogIn = Callable[..., None]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/runs",
        "/breakers",
        "/breakers/never-seen",
        "/alerts",
        "/dead-letters",
        "/interventions",
        "/quarantine",
        "/schedules",
        "/audit",
        "/reports",
        "/incidents",
    ],
)
def test_every_page_loads_where_nothing_happened_yet(page: Page, log_in: LogIn, path: str) -> None:
    log_in()
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == 200
    expect(page.locator(".empty, table").first).to_be_visible()


def test_a_wrong_token_is_refused(page: Page, site: Any) -> None:
    page.goto("/")
    page.wait_for_url("**/login")
    page.get_by_label("Token").fill("td_" + "x" * 43)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    page.goto("/runs")
    page.wait_for_url("**/login")


def test_the_overview_shows_errors_by_code_and_what_runs(
    page: Page, log_in: LogIn, site: Any, new_run: Callable[..., str], fail: Callable[..., str]
) -> None:
    for _ in range(3):
        fail(ServiceUnavailableError("away"))
    fail(ValidationError("a column is missing"))
    site.audited("load")
    new_run(str(uuid.uuid4()))
    log_in()
    legend = page.locator(".legend")
    expect(legend).to_contain_text("SERVICE_UNAVAILABLE", timeout=15_000)
    expect(legend).to_contain_text("VALIDATION_ERROR")
    assert page.locator("svg.chart rect").count() >= 2
    bar = page.locator("#progress progress").first
    assert bar.get_attribute("value") == "60000"
    assert bar.get_attribute("max") == "100000"


def test_a_page_renews_itself(page: Page, log_in: LogIn, trip: Callable[[str], None]) -> None:
    log_in()
    expect(page.locator("#breakers")).not_to_contain_text("renewed.service")
    trip("renewed.service")
    expect(page.locator("#breakers")).to_contain_text("renewed.service", timeout=15_000)


def test_a_breaker_is_reset_by_a_click_and_it_is_on_record(
    page: Page, log_in: LogIn, site: Any, trip: Callable[[str], None]
) -> None:
    trip("lab/west")
    log_in("operator")
    page.get_by_role("link", name="Breakers", exact=True).click()
    page.get_by_role("link", name="lab/west").click()
    expect(page.locator("h1")).to_contain_text("open")
    page.get_by_label("Reason").fill("the lab is back")
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_role("status")).to_contain_text("Done")
    expect(page.locator("h1")).to_contain_text("closed")
    expect(page.locator("#history")).to_contain_text("operator")
    assert site.runtime.breakers.get_status("lab/west")["state"] == "closed"
    (document,) = site.audited("breaker.reset")
    assert (document["owner"], document["reason"]) == ("operator", "the lab is back")


def test_an_alert_is_taken_charge_of_silenced_and_told_again(
    page: Page, log_in: LogIn, site: Any, trip: Callable[[str], None], evaluate: Callable[[], None]
) -> None:
    trip("lab/north")
    evaluate()
    log_in("operator")
    page.get_by_role("link", name="lab/north").first.wait_for()
    page.get_by_role("link", name="Alerts", exact=True).click()
    alert = page.get_by_role("article").filter(has_text="lab/north")
    expect(alert).to_contain_text("nobody was told")
    alert.locator("summary").click()
    alert.get_by_label("Reason").fill("I call the lab")
    alert.get_by_role("button", name="Take charge").click()
    expect(page.get_by_role("status")).to_contain_text("in charge")
    expect(alert).to_contain_text("operator is in charge")
    alert.locator("summary").click()
    alert.get_by_label("Reason").fill("planned work")
    alert.get_by_role("button", name="Silence 8 h").click()
    expect(alert).to_contain_text("silenced")
    silences = page.locator("table").filter(has_text="Nobody is told of")
    expect(silences).to_contain_text("planned work")
    assert [silence.owner for silence in site.runtime.alerts.silences()] == ["operator"]
    silences.get_by_label("Reason to end the silence").fill("done early")
    silences.get_by_role("button", name="End").click()
    expect(page.get_by_role("status")).to_contain_text("The silence is over")
    assert site.runtime.alerts.silences() == []
    alert.get_by_role("link", name="lab/north is open").click()
    expect(page.locator("h1")).to_contain_text("lab/north")
    expect(page.locator(".empty")).to_contain_text("Nobody was told")


def test_planned_work_is_silenced_by_a_form(page: Page, log_in: LogIn, site: Any) -> None:
    log_in("operator")
    page.goto("/alerts")
    page.get_by_text("for planned work").click()
    page.get_by_label("Service, breaker or code").fill("archive")
    page.get_by_label("Reason").last.fill("the archive moves")
    page.get_by_role("button", name="Silence", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("until the silence ends")
    (silence,) = site.runtime.alerts.silences()
    assert (silence.alert_type, silence.subject, silence.reason) == (None, "archive", "the archive moves")
    site.runtime.alerts.unsilence(str(silence.silence_id), by="test", reason="test")


def test_a_dead_letter_is_replayed(
    page: Page, log_in: LogIn, site: Any, new_letter: Callable[..., Any]
) -> None:
    letter = new_letter()
    log_in("operator")
    page.get_by_role("link", name="Failed tasks", exact=True).click()
    expect(page.get_by_role("article")).to_contain_text("lab.fetch")
    assert "secret-argument" not in page.content()
    page.get_by_text("Replay or drop").click()
    page.get_by_label("Reason").fill("mended")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status")).to_contain_text("Sent again")
    assert letter.letter_id not in {kept.letter_id for kept in site.runtime.dead_letters.list()}
    assert site.audited("dead.replay")[0]["reason"] == "mended"


def test_an_auditor_searches_reads_and_verifies(
    page: Page, log_in: LogIn, site: Any, fail: Callable[..., str]
) -> None:
    error_id = fail(ServiceUnavailableError("the archive does not answer"), "archive")
    site.audited("load")
    log_in("auditor")
    page.get_by_role("link", name="Audit log", exact=True).click()
    page.get_by_label("Error id").fill(error_id)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("table.log tbody tr")).to_have_count(1)
    expect(page.locator("table.log")).to_contain_text("the archive does not answer")
    page.get_by_role("button", name="Verify now").click()
    expect(page.locator(".verdict")).to_contain_text("untouched")


def test_a_run_is_called_off(page: Page, log_in: LogIn, site: Any, new_run: Callable[..., str]) -> None:
    run_id = new_run(str(uuid.uuid4()))
    log_in("submitter")
    page.goto(f"/runs/{run_id}")
    page.get_by_label("Reason").fill("wrong file")
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_role("status")).to_contain_text("Called off")
    assert site.runtime.pipeline_store.get_run(run_id).state == "cancelling"


def test_a_report_is_made_read_and_signed_off(page: Page, log_in: LogIn, site: Any) -> None:
    log_in("auditor")
    page.get_by_role("link", name="Reports", exact=True).click()
    page.get_by_role("button", name="Make a report").click()
    expect(page.get_by_role("status")).to_contain_text("Read it")
    page.get_by_role("link", name="Read the whole report").click()
    expect(page.locator("h1").first).to_be_visible()
    page.go_back()
    page.get_by_label("What you conclude").fill("nothing unusual")
    page.get_by_role("button", name="Sign off").click()
    expect(page.get_by_role("status")).to_contain_text("Signed off")
    (report,) = site.runtime.reports.search(1)
    assert (report.reviewed_by, report.review_note) == ("auditor", "nothing unusual")
    assert site.audited("report.sign_off")


def test_an_incident_is_taken_on(page: Page, log_in: LogIn, site: Any, fail: Callable[..., str]) -> None:
    error_id = fail(EncryptionError("a key is missing"), "vault")
    while error_id not in {incident.error_id for incident in site.runtime.incidents.search()}:
        site.runtime.incidents.catch_up()
    log_in("auditor")
    page.get_by_role("link", name="Incidents", exact=True).click()
    incident = page.get_by_role("article").filter(has_text="vault")
    incident.locator("summary").click()
    incident.get_by_label("What you found").fill("key was rotated too early")
    incident.get_by_role("button", name="I investigate").click()
    expect(page.get_by_role("article").filter(has_text="vault")).to_contain_text("investigating")


def test_everything_can_be_reached_by_keyboard(page: Page, log_in: LogIn) -> None:
    log_in()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize(
    "path", ["/", "/runs", "/schedules", "/alerts", "/quarantine", "/audit", "/reports", "/incidents"]
)
def test_a_small_screen_needs_no_sideways_scrolling(page: Page, log_in: LogIn, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    log_in()
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_who_logs_out_is_out(page: Page, log_in: LogIn) -> None:
    log_in()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto("/runs")
    page.wait_for_url("**/login")


def test_a_revoked_token_ends_its_session(page: Page, site: Any) -> None:
    _, secret = site.tokens.create("leaver", [Role.OPERATOR], timedelta(hours=1), "test")
    page.goto("/login")
    page.get_by_label("Token").fill(secret)
    page.keyboard.press("Enter")
    page.wait_for_url("**/")
    site.tokens.revoke("leaver")
    page.goto("/runs")
    page.wait_for_url("**/login")


def test_the_tables_of_a_small_screen_name_each_value(
    page: Page, log_in: LogIn, new_run: Callable[..., str]
) -> None:
    new_run(str(uuid.uuid4()), fails=True)
    page.set_viewport_size({"width": 360, "height": 740})
    log_in()
    page.goto("/runs")
    cells = page.locator("#runs tbody tr").first.locator("td")
    labels = cells.evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    assert labels == ['"Pipeline"', '"State"', '"Begun"', '"Took"', '"Error"']
    assert page.locator("#runs").evaluate("card => card.scrollWidth <= card.clientWidth")
