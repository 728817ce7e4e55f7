"""What the API does for those who may."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from techdeck_tasks.errors import HIPAAComplianceError, ServiceUnavailableError
from techdeck_tasks.settings import Settings
from techdeck_tasks.tasks.letters import Letter, LetterKind

DEFINITION: dict[str, Any] = {
    "name": "patients",
    "source": {"url": "/data/patients.csv"},
    "stages": [{"name": "load", "stage": "dataset_load"}],
}


def test_a_pipeline_is_started_once_per_key(site: Any) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with site.client("submitter") as client:
        first = client.post("/api/v1/runs", json=DEFINITION, headers=key)
        again = client.post("/api/v1/runs", json=DEFINITION, headers=key)
        other = client.post("/api/v1/runs", json={**DEFINITION, "name": "others"}, headers=key)
        shown = client.get(f"/api/v1/runs/{first.json()['run_id']}")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert (other.status_code, other.json()["error_code"]) == (400, "VALIDATION_ERROR")
    assert shown.json()["state"] == "queued"
    assert [stage["name"] for stage in shown.json()["stages"]] == ["load"]
    assert site.audited("pipeline.start")[0]["owner"] == "submitter"


def test_what_is_wrong_with_a_definition_is_told(site: Any) -> None:
    with site.client("submitter") as client:
        response = client.post("/api/v1/runs", json={**DEFINITION, "stages": []})
    assert response.status_code == 400
    assert "stages" in response.json()["message"]


@pytest.mark.parametrize("folder", ["keys_dir", "upload_dir", "audit_spool_dir"])
def test_no_definition_leads_into_the_service_s_own_folders(
    site: Any, site_settings: Settings, folder: str
) -> None:
    inside = str(getattr(site_settings, folder) / "x.csv")
    export = {"name": "export", "needs": ["load"], "params": {"destination": inside}}
    reading = {**DEFINITION, "source": {"url": inside}}
    writing = {**DEFINITION, "stages": [*DEFINITION["stages"], export]}
    with site.client("submitter") as client:
        answers = [client.post("/api/v1/runs", json=definition) for definition in (reading, writing)]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert [answer.json()["error_code"] for answer in answers] == ["AUTHZ_ERROR"] * 2


def test_runs_are_paged_each_once(site: Any, new_run: Callable[..., str]) -> None:
    made = {new_run(str(uuid.uuid4())) for _ in range(5)}
    seen: list[str] = []
    with site.client("submitter") as client:
        parameters: dict[str, Any] = {"limit": 2, "state": "running"}
        while True:
            page = client.get("/api/v1/runs", params=parameters).json()
            seen += [run["run_id"] for run in page["runs"]]
            if page["next"] is None:
                break
            parameters["cursor"] = page["next"]
    assert made <= set(seen)
    assert len(seen) == len(set(seen))


def test_incidents_and_reports_are_paged_each_once(site: Any, fail: Callable[..., str]) -> None:
    made = {fail(HIPAAComplianceError("unsealed"), "paged") for _ in range(5)}
    known: set[str] = set()
    while not made <= known:
        site.runtime.incidents.catch_up()
        known = {incident.error_id or "" for incident in site.runtime.incidents.search()}
    with site.client("auditor") as client:
        for day in range(1, 4):
            period = {"start": f"2026-02-0{day}T00:00:00Z", "end": f"2026-02-0{day + 1}T00:00:00Z"}
            assert client.post("/api/v1/reports", json=period).status_code == 201
        for path, name, least in (("incidents", "incident_id", 5), ("reports", "report_id", 3)):
            seen: list[str] = []
            parameters: dict[str, Any] = {"limit": 2}
            while parameters.get("cursor", "") is not None:
                page = client.get(f"/api/v1/{path}", params=parameters).json()
                seen += [one[name] for one in page[path]]
                parameters["cursor"] = page["next"]
            assert len(seen) == len(set(seen)) >= least


def test_letters_and_quarantine_are_paged_each_once(site: Any, new_letter: Callable[..., Letter]) -> None:
    for kind in LetterKind:
        for _ in range(3):
            new_letter(kind)
    for _ in range(3):
        site.runtime.quarantine.add("malformed", b"body", queue="pipeline")
    with site.client("operator") as client:
        for path, name, record_id in (
            ("dead-letters", "letters", "letter_id"),
            ("interventions", "letters", "letter_id"),
            ("quarantine", "messages", "message_id"),
        ):
            seen: list[str] = []
            parameters: dict[str, Any] = {"limit": 2}
            while parameters.get("cursor", "") is not None:
                page = client.get(f"/api/v1/{path}", params=parameters).json()
                seen += [one[record_id] for one in page[name]]
                parameters["cursor"] = page["next"]
            assert len(seen) == len(set(seen)) == page["count"] >= 3
    for kept in site.runtime.quarantine.list():
        site.runtime.quarantine.take(kept.message_id)


@pytest.mark.parametrize("cursor", ["x", "bm90IGpzb24", "W10", "WzEsMl0", "WyIyMDI2LTAxLTAxIiwieCJd"])
def test_a_made_up_cursor_is_refused(site: Any, cursor: str) -> None:
    with site.client("everybody") as client:
        pages = ("runs", "alerts", "audit", "errors", "incidents", "reports")
        for path in (*pages, "dead-letters", "interventions", "quarantine"):
            response = client.get(f"/api/v1/{path}", params={"cursor": cursor})
            assert (response.status_code, response.json()["error_code"]) == (400, "VALIDATION_ERROR")


def test_an_unknown_run_is_not_found(site: Any) -> None:
    with site.client("submitter") as client:
        assert client.get(f"/api/v1/runs/{uuid.uuid4()}").status_code == 404


def test_a_run_is_cancelled_and_resumed(site: Any) -> None:
    with site.client("submitter") as client:
        run_id = client.post("/api/v1/runs", json=DEFINITION).json()["run_id"]
        path = f"/api/v1/runs/{run_id}"
        assert client.post(f"{path}/resume", json={"reason": "too early"}).status_code == 422
        assert client.post(f"{path}/cancel", json={"reason": "wrong file"}).json()["state"] == "cancelled"
        assert client.post(f"{path}/resume", json={"reason": "file mended"}).json()["stages"] == ["load"]
        assert client.get(path).json()["state"] == "queued"
        assert client.post(f"/api/v1/runs/{uuid.uuid4()}/cancel", json={"reason": "a"}).status_code == 404


def test_runs_are_reconciled_on_demand(site: Any) -> None:
    with site.client("operator") as client:
        found = client.post("/api/v1/runs/reconcile", json={"reason": "a worker was killed"}).json()
    assert found.keys() == {"resent", "lost", "failed"}
    assert site.audited("run.reconcile")[0]["owner"] == "operator"


def test_a_pipeline_is_scheduled_listed_and_ended(site: Any) -> None:
    body = {"definition": {**DEFINITION, "name": "nightly", "schedule": "0 3 * * *"}, "reason": "wanted"}
    with site.client("submitter") as client:
        made = client.post("/api/v1/schedules", json=body)
        assert (made.status_code, made.json()["cron"]) == (201, "0 3 * * *")
        assert made.json() in client.get("/api/v1/schedules").json()["schedules"]
        without = client.post("/api/v1/schedules", json={"definition": DEFINITION, "reason": "wanted"})
        assert (without.status_code, without.json()["error_code"]) == (400, "VALIDATION_ERROR")
        path, why = "/api/v1/schedules/nightly", {"reason": "not any more"}
        assert [client.delete(path, params=why).status_code for _ in range(2)] == [204, 400]
        assert "nightly" not in client.get("/api/v1/schedules").text
    assert "not any more" in {document["reason"] for document in site.audited("schedule.remove")}


def test_messages_that_nobody_could_read_are_listed_sent_and_dropped(site: Any) -> None:
    quarantine = site.runtime.quarantine
    sent = quarantine.add(
        "no such task",
        b"canary-body",
        queue="elsewhere",
        headers={"task": "lab.gone", "id": "t-9"},
        properties={"correlation_id": "t-9"},
        content_type="application/json",
        content_encoding="utf-8",
    )
    dropped = quarantine.add("malformed", b"canary-body", queue="pipeline")
    with site.client("operator") as client:
        listed = client.get("/api/v1/quarantine")
        assert {sent.message_id, dropped.message_id} <= {
            one["message_id"] for one in listed.json()["messages"]
        }
        assert "canary-body" not in listed.text
        path, why = f"/api/v1/quarantine/{sent.message_id}/replay", {"reason": "it is registered"}
        assert client.post(path, json=why).json() == {"queue": "elsewhere"}
        assert client.post(path, json=why).status_code == 400
        gone = client.delete(f"/api/v1/quarantine/{dropped.message_id}", params={"reason": "damaged"})
        assert gone.status_code == 200
    assert quarantine.count() == 0
    assert site.runtime.redis.llen("elsewhere") == 1
    assert site.audited("quarantine.replay")[0]["quarantined"]["task_name"] == "lab.gone"


def test_a_breaker_is_overruled_and_it_is_on_record_before(site: Any, trip: Callable[[str], None]) -> None:
    trip("api/lab")
    with site.client("operator") as client:
        shown = client.get("/api/v1/breakers/api/lab").json()
        assert shown["state"] == "open"
        assert shown["transitions"][0]["to"] == "open"
        forced = client.post(
            "/api/v1/breakers/api/lab", json={"action": "open", "reason": "moving", "minutes": 5}
        ).json()
        assert forced["state"] == "forced-open"
        assert forced["override"]["owner"] == "operator"
        assert 0 < forced["override"]["seconds_left"] <= 300
        client.post("/api/v1/breakers/api/lab", json={"action": "clear", "reason": "moved"})
        reset = client.post("/api/v1/breakers/api/lab", json={"action": "reset", "reason": "back"}).json()
        assert reset["state"] == "closed"
        assert "api/lab" in {
            each["operation_name"] for each in client.get("/api/v1/breakers").json()["breakers"]
        }
    assert site.audited("breaker.open")[0]["breaker"] == "api/lab"


def test_letters_are_listed_sent_and_dropped(site: Any, new_letter: Callable[..., Any]) -> None:
    sent, dropped = new_letter(), new_letter()
    waiting = new_letter(LetterKind.INTERVENTION)
    with site.client("operator") as client:
        listed = client.get("/api/v1/dead-letters")
        assert {sent.letter_id, dropped.letter_id} <= {one["letter_id"] for one in listed.json()["letters"]}
        assert "secret-argument" not in listed.text
        body = {"reason": "mended"}
        assert client.post(f"/api/v1/dead-letters/{sent.letter_id}/replay", json=body).json()["task_id"]
        assert client.delete(f"/api/v1/dead-letters/{dropped.letter_id}", params=body).status_code == 200
        assert client.post(f"/api/v1/interventions/{waiting.letter_id}/resolve", json=body).status_code == 200
        again = client.post(f"/api/v1/dead-letters/{sent.letter_id}/replay", json=body)
        assert (again.status_code, again.json()["error_code"]) == (400, "VALIDATION_ERROR")
    left = {letter.letter_id for letter in site.runtime.dead_letters.list()}
    assert left.isdisjoint({sent.letter_id, dropped.letter_id})


def test_a_replay_into_an_open_breaker_is_refused_unless_forced(
    site: Any, new_letter: Callable[..., Any], trip: Callable[[str], None]
) -> None:
    trip("api.replay")
    letter = new_letter(breaker="api.replay")
    with site.client("operator") as client:
        path = f"/api/v1/dead-letters/{letter.letter_id}/replay"
        refused = client.post(path, json={"reason": "try"})
        assert (refused.status_code, refused.json()["error_code"]) == (503, "CIRCUIT_BREAKER_ERROR")
        assert client.post(path, json={"reason": "try", "force": True}).status_code == 200


def test_an_auditor_reads_what_an_operator_sees_only_the_outside_of(
    site: Any, fail: Callable[..., str]
) -> None:
    error_id = fail(ServiceUnavailableError("the archive is away"), "archive")
    site.audited("load", error_id)
    with site.client("auditor") as client:
        (entry,) = client.get("/api/v1/audit", params={"error_id": error_id}).json()["entries"]
    assert entry["document"]["message"] == "the archive is away"
    with site.client("operator") as client:
        listed = client.get("/api/v1/errors", params={"service": "archive"})
    assert error_id in {one["error_id"] for one in listed.json()["errors"]}
    assert "the archive is away" not in listed.text
    deadline = time.monotonic() + 20
    while not {"auditor", "operator"} <= {document["reader"] for document in site.audited("search")}:
        assert time.monotonic() < deadline, "a reading is not on record"


def test_the_log_is_verified(site: Any) -> None:
    with site.client("auditor") as client:
        verdict = client.post("/api/v1/audit/verify").json()
    assert (verdict["ok"], verdict["findings"]) == (True, [])
    assert verdict["rows"] > 0


def test_figures_count_what_failed(site: Any, fail: Callable[..., str]) -> None:
    fail(ServiceUnavailableError("away"), "figures")
    with site.client("submitter") as client:
        statistics = client.get("/api/v1/statistics", params={"service": "figures"}).json()
        hours = client.get("/api/v1/trend", params={"service": "figures", "hours": 3}).json()["hours"]
        found = client.get("/api/v1/alert-conditions").json()["conditions"]
        retries = client.get("/api/v1/retries").json()
    assert statistics["total_errors"] == 1
    assert statistics["top_error_codes"][0]["error_code"] == "SERVICE_UNAVAILABLE"
    assert (len(hours), hours[-1]["error_count"]) == (3, 1)
    assert "high_service_error_rate" in {condition["alert_type"] for condition in found}
    assert "total_retries" in retries


def test_a_report_is_made_and_signed_once(site: Any) -> None:
    period = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-08T00:00:00Z"}
    with site.client("auditor") as client:
        made = client.post("/api/v1/reports", json=period)
        assert made.status_code == 201
        report_id, sha256 = made.json()["report_id"], made.json()["sha256"]
        assert report_id in {one["report_id"] for one in client.get("/api/v1/reports").json()["reports"]}
        assert client.get(f"/api/v1/reports/{report_id}").json()["report"]["total_errors"] == 0
        path = f"/api/v1/reports/{report_id}/sign-off"
        assert client.post(path, json={"note": "read", "sha256": "0" * 64}).status_code == 400
        signed = client.post(path, json={"note": "read", "sha256": sha256})
        assert signed.json()["reviewed_by"] == "auditor"
        assert client.post(path, json={"note": "again"}).status_code == 400


def test_incidents_are_assigned_and_ended(site: Any, fail: Callable[..., str]) -> None:
    first, second = (fail(HIPAAComplianceError("unsealed"), "vault") for _ in range(2))
    site.audited("load")
    known: dict[str, str] = {}
    while not {first, second} <= known.keys():
        site.runtime.incidents.catch_up()
        known = {one.error_id or "": one.incident_id for one in site.runtime.incidents.search()}
    with site.client("auditor") as client:
        path = f"/api/v1/incidents/{known[first]}"
        assert client.get(path).json()["state"] == "open"
        taken = client.post(f"{path}/assign", json={"assignee": "ada", "note": "looks into it"}).json()
        assert (taken["state"], taken["assignee"]) == ("investigating", "ada")
        ended = client.post(f"{path}/resolve", json={"secured": True, "note": "was sealed"}).json()
        assert (ended["state"], ended["changed_by"]) == ("resolved", "auditor")
        other = client.post(f"/api/v1/incidents/{known[second]}/dismiss", json={"note": "a test"}).json()
        assert other["state"] == "dismissed"
        listed = client.get("/api/v1/incidents", params={"state": "resolved"}).json()["incidents"]
    assert known[first] in {one["incident_id"] for one in listed}


def test_a_token_tells_when_it_was_last_used(site: Any) -> None:
    with site.client("submitter") as client:
        client.get("/api/v1/runs")
    (token,) = [token for token in site.tokens.list() if token.name == "submitter"]
    assert token.last_used_at is not None
