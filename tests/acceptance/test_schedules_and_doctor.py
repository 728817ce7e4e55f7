"""Schedules, and the doctor, on a running service."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

DEFINITION = """
name: {name}
source: {{url: scheduled.csv}}
{schedule}
stages:
  - {{name: load, stage: dataset_load}}
"""


def write(service: Any, name: str, schedule: str = 'schedule: "* * * * *"') -> str:
    (service.folder / "scheduled.csv").write_text("age\n36\n")
    (service.folder / f"{name}.yaml").write_text(DEFINITION.format(name=name, schedule=schedule))
    return f"{name}.yaml"


def scheduled(service: Any) -> dict[str, str]:
    listed = json.loads(service.techdeck("schedule", "list", "--json").stdout)
    return {one["name"]: one["cron"] for one in listed}


@pytest.mark.timeout(200)
def test_a_scheduled_pipeline_is_started_by_beat_until_it_is_removed(service: Any) -> None:
    added = service.techdeck("schedule", "add", write(service, "each-minute"), "--reason", "try")
    assert (added.returncode, added.stdout) == (0, "each-minute is started at * * * * * (UTC)\n"), (
        added.stderr
    )
    assert scheduled(service)["each-minute"] == "* * * * *"
    assert "each-minute" in service.techdeck("schedule", "list").stdout

    deadline = time.monotonic() + 120
    while "each-minute" not in {
        run["name"] for run in json.loads(service.techdeck("list", "--json").stdout) if run["finished_at"]
    }:
        assert time.monotonic() < deadline, "its slot was not started"

    removed = service.techdeck("schedule", "remove", "each-minute", "--reason", "done")
    assert removed.stdout == "each-minute is not started any more\n"
    assert "each-minute" not in scheduled(service)
    again = service.techdeck("schedule", "remove", "each-minute", "--reason", "done")
    assert again.returncode == 2


def test_adding_the_same_name_again_replaces_its_schedule_and_both_are_on_record(service: Any) -> None:
    for schedule in ("0 6 * * *", "0 7 * * *"):
        file = write(service, "morning", f'schedule: "{schedule}"')
        assert service.techdeck("schedule", "add", file, "--reason", "early").returncode == 0
    assert scheduled(service)["morning"] == "0 7 * * *"
    service.techdeck("schedule", "remove", "morning", "--reason", "done")

    deadline = time.monotonic() + 30
    wanted = ("audit", "list", "--service", "pipeline", "--json")
    while True:
        entries = json.loads(service.techdeck(*wanted).stdout)
        done = [e["operation"] for e in entries if e["document"].get("schedule") == "morning"]
        if done == ["schedule.remove", "schedule.add", "schedule.add"]:
            break
        assert time.monotonic() < deadline, done


def test_a_definition_without_a_schedule_is_refused_with_an_example(service: Any) -> None:
    refused = service.techdeck("schedule", "add", write(service, "never", ""), "--reason", "try")
    assert refused.returncode == 2
    assert "schedule: '0 6 * * *'" in refused.stderr


def test_the_doctor_finds_a_running_service_well(service: Any) -> None:
    deadline = time.monotonic() + 60
    checks: dict[str, Any] = {}
    while checks.get("beat", {}).get("verdict") != "ok":
        checked = service.techdeck("doctor", "--json")
        assert time.monotonic() < deadline, checked.stdout
        checks = {check["name"]: check for check in json.loads(checked.stdout)}
    assert checked.returncode == 0
    assert {"Redis", "PostgreSQL", "pipeline worker", "audit worker", "beat"} <= checks.keys()
    assert [name for name, check in checks.items() if check["verdict"] == "warn"] == ["PostgreSQL role"]
    readable = service.techdeck("doctor")
    assert (readable.returncode, "use a role of its own" in readable.stdout) == (0, True)


def test_the_doctor_says_what_to_do_about_a_redis_that_is_away(service: Any) -> None:
    checked = service.techdeck("doctor", TECHDECK_REDIS_URL="redis://:geheim@127.0.0.1:1/0")
    assert checked.returncode == 1
    assert "start Redis, or set TECHDECK_REDIS_URL" in checked.stdout
    assert "geheim" not in checked.stdout + checked.stderr


def test_without_a_service_a_command_says_how_to_start_one(techdeck: Any) -> None:
    hint = "no service runs in this folder: start one with techdeck up"
    assert hint in techdeck("list").stderr

    techdeck("keys", "generate")
    away = techdeck("list")
    assert (away.returncode, hint in away.stderr) == (3, True)
