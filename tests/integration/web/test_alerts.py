"""Alerts as the API tells of them, and what an operator does about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def firing(
    site: Any, trip: Callable[[str], None], evaluate: Callable[[], None]
) -> Callable[[str], dict[str, Any]]:
    """Lets the alert of an open breaker fire, and returns it as the API tells it."""

    def firing(breaker: str) -> dict[str, Any]:
        trip(breaker)
        evaluate()
        with site.client("submitter") as client:
            listed = client.get("/api/v1/alerts").json()["alerts"]
        (alert,) = [one for one in listed if one["subject"] == breaker]
        return dict(alert)

    return firing


def test_what_is_wrong_is_listed_until_it_is_over(
    site: Any, firing: Callable[..., Any], evaluate: Callable[[], None]
) -> None:
    alert = firing("alerts.over")
    assert (alert["alert_type"], alert["state"], alert["silenced"]) == ("breaker_open", "firing", False)
    site.runtime.breakers.get("alerts.over").manual_reset(owner="test", reason="back")
    for _ in range(site.runtime.settings.alert_resolve_after_evaluations):
        evaluate()
    with site.client("submitter") as client:
        left = client.get("/api/v1/alerts").json()["alerts"]
        over = client.get("/api/v1/alerts", params={"resolved": True}).json()["alerts"]
        shown = client.get(f"/api/v1/alerts/{alert['alert_id'][:13]}").json()
    assert alert["alert_id"] not in {one["alert_id"] for one in left}
    assert alert["alert_id"] in {one["alert_id"] for one in over}
    assert (shown["state"], shown["deliveries"]) == ("resolved", [])


def test_alerts_are_paged_each_once(site: Any, firing: Callable[..., Any]) -> None:
    made = {firing(f"alerts.paged.{number}")["alert_id"] for number in range(5)}
    seen: list[str] = []
    parameters: dict[str, Any] = {"limit": 2}
    with site.client("submitter") as client:
        while parameters.get("cursor", "") is not None:
            page = client.get("/api/v1/alerts", params=parameters).json()
            seen += [alert["alert_id"] for alert in page["alerts"]]
            parameters["cursor"] = page["next"]
    assert made <= set(seen)
    assert len(seen) == len(set(seen))


def test_one_operator_takes_charge_and_it_is_on_record(site: Any, firing: Callable[..., Any]) -> None:
    alert = firing("alerts.charge")
    path = f"/api/v1/alerts/{alert['alert_id']}/acknowledge"
    with site.client("operator") as client:
        taken = client.post(path, json={"reason": "looking"}).json()
        again = client.post(path, json={"reason": "looking"})
    assert taken["acknowledged_by"] == "operator"
    assert (again.status_code, again.json()["error_code"]) == (400, "VALIDATION_ERROR")
    assert {"looking"} == {document["reason"] for document in site.audited("alerts.acknowledge")}


def test_a_silence_has_an_owner_and_an_end_and_can_be_ended(site: Any, firing: Callable[..., Any]) -> None:
    alert = firing("alerts.silence")
    body = {"alert_type": "breaker_open", "subject": "alerts.silence", "hours": 2, "reason": "moving"}
    with site.client("operator") as client:
        made = client.post("/api/v1/silences", json=body)
        silence = made.json()
        assert (made.status_code, silence["owner"]) == (201, "operator")
        assert silence in client.get("/api/v1/silences").json()["silences"]
        (found,) = [
            one
            for one in client.get("/api/v1/alerts").json()["alerts"]
            if one["alert_id"] == alert["alert_id"]
        ]
        assert found["silenced"]
        path = f"/api/v1/silences/{silence['silence_id']}"
        assert client.delete(path, params={"reason": "moved"}).status_code == 200
        assert client.delete(path, params={"reason": "moved"}).status_code == 400
        assert silence["silence_id"] not in client.get("/api/v1/silences").text
    assert site.audited("alerts.silence")[0]["subject"] == "alerts.silence"
    assert site.audited("alerts.unsilence")[0]["reason"] == "moved"


@pytest.mark.parametrize(
    "wrong",
    [
        {"hours": 1},
        {"subject": "lab"},
        {"subject": "lab", "hours": 0},
        {"subject": "lab", "hours": -1},
        {"subject": "lab", "hours": 1e300},
        {"subject": "lab", "hours": "nan"},
        {"subject": "a\nb", "hours": 1},
        {"subject": "lab", "hours": 1, "owner": "somebody else"},
    ],
)
def test_a_silence_without_bounds_is_refused(site: Any, wrong: dict[str, Any]) -> None:
    with site.client("operator") as client:
        response = client.post("/api/v1/silences", json={"reason": "a", **wrong})
    assert (response.status_code, response.json()["error_code"]) == (400, "VALIDATION_ERROR")
