"""The command line against a running service, and against none."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import psycopg
import pytest
import yaml
from redis import Redis
from sqlalchemy import make_url

from techdeck_tasks.errors import AuthenticationError
from techdeck_tasks.runtime import create_app, runtime_of
from techdeck_tasks.tasks.letters import Letter, LetterKind

Techdeck = Callable[..., CompletedProcess[str]]

CANARY = "canary.patient@example.org"
EXITS = {"ok": 0, "failed": 1, "bad input": 2, "unavailable": 3}


def write_definition(folder: Path, name: str, **changes: Any) -> str:
    source = folder / f"{name}.csv"
    pl.DataFrame({"age": [30, 41, 52], "mail": [CANARY] * 3}).write_csv(source)
    definition = {
        "name": name,
        "source": {"url": source.name},
        "stages": [
            {"name": "load", "stage": "dataset_load"},
            {
                "name": "check",
                "stage": "validation",
                "needs": ["load"],
                "params": {"columns": {"age": {"dtype": "int", "le": 120}}},
            },
            {
                "name": "save",
                "stage": "export",
                "needs": ["check"],
                "params": {"destination": f"{name}.parquet"},
            },
        ],
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(definition | changes))
    return file.name


def test_a_run_is_followed_to_its_end_and_can_be_looked_at_again(service: Any) -> None:
    definition = write_definition(service.folder, "good")

    run = service.techdeck("run", definition, "--json")
    assert run.returncode == EXITS["ok"], run.stderr
    document = json.loads(run.stdout)
    assert document["state"] == "succeeded"
    assert [stage["state"] for stage in document["stages"]] == ["succeeded"] * 3
    assert pl.read_parquet(service.folder / "good.parquet").height == 3

    status = service.techdeck("status", document["run_id"])
    assert status.returncode == EXITS["ok"]
    assert "good  run" in status.stdout
    assert "succeeded" in status.stdout


def test_a_failed_run_exits_with_1_and_its_error_is_in_the_audit_log(service: Any) -> None:
    rules = {"columns": {"age": {"le": 35}}, "max_bad_rows": 0}
    stages = [
        {"name": "load", "stage": "dataset_load"},
        {"name": "check", "stage": "validation", "needs": ["load"], "params": rules},
    ]
    definition = write_definition(service.folder, "bad", stages=stages)

    run = service.techdeck("run", definition)
    assert run.returncode == EXITS["failed"]
    assert "check failed VALIDATION_ERROR" in run.stdout

    listed = service.techdeck("audit", "list", "--code", "VALIDATION_ERROR", "--json")
    assert listed.returncode == EXITS["ok"], listed.stderr
    entry = json.loads(listed.stdout)[0]
    assert entry["stage"] == "check"
    assert entry["outcome"] == "failed"
    assert "2 of 3 rows are bad" in entry["document"]["message"]


def test_the_same_idempotency_key_gives_the_same_run(service: Any) -> None:
    definition = write_definition(service.folder, "once")

    ids = [
        json.loads(service.techdeck("run", definition, "--idempotency-key", "k-1", "--json").stdout)["run_id"]
        for _ in range(2)
    ]

    assert ids[0] == ids[1]


def test_no_server_and_no_log_of_the_service_holds_a_field_of_the_data(service: Any) -> None:
    service.techdeck("run", write_definition(service.folder, "secret"))

    redis = Redis.from_url(service.settings.redis_url.get_secret_value())
    assert not [key for key in redis.scan_iter() if CANARY.encode() in (redis.dump(key) or b"")]
    url = make_url(service.settings.database_url.get_secret_value()).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        tables = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        assert len(tables) > 5
        for (table,) in tables:
            found = connection.execute(
                f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s", (f"%{CANARY}%",)
            ).fetchone()
            assert found == (0,), table
    logs = list((service.folder / ".techdeck").rglob("*.log"))
    assert len(logs) >= 3
    assert not [log for log in logs if CANARY in log.read_text(errors="replace")]
    backup = list((service.folder / ".techdeck" / "audit-backup").rglob("*.json*"))
    assert backup
    assert not [file for file in backup if CANARY in file.read_text(errors="replace")]


def test_status_tells_what_is_on_its_way_to_the_log(service: Any) -> None:
    told = json.loads(service.techdeck("audit", "status", "--json").stdout)

    assert told["redis_reachable"] is True
    assert (told["dead_consumers"], told["spool_files"]) == (0, 0)
    readable = service.techdeck("audit", "status")
    assert (readable.returncode, "stream entries" in readable.stdout) == (EXITS["ok"], True)


def test_verify_finds_nothing_in_an_untouched_log(service: Any) -> None:
    verified = service.techdeck("audit", "verify", "--json")

    assert verified.returncode == EXITS["ok"], verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["ok"] is True


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: [", "line 1"),
        ("- 1", "mapping"),
        (
            "name: x\nsource: {url: x.csv}\nstages:\n- {name: a, stage: nonsense}\n",
            "unknown stage kind 'nonsense'",
        ),
        ("name: x\nsource: {url: x.csv}\nstages:\n- {name: a, stage: dataset_load}\n", "there is no file"),
        (
            (
                "name: x\nsource: {url: x.csv}\nstages:\n"
                "- {name: a, stage: dataset_load, needs: [b]}\n- {name: b, stage: dataset_load, needs: [a]}\n"
            ),
            "cycle",
        ),
    ],
)
def test_a_bad_definition_is_one_clear_line_and_exit_code_2(
    techdeck: Techdeck, tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)

    run = techdeck("run", "x.yaml")

    assert run.returncode == EXITS["bad input"]
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert complaint in run.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "x.yaml"]


def test_a_database_that_is_away_is_one_clear_line_and_exit_code_3(
    techdeck: Techdeck, tmp_path: Path
) -> None:
    definition = write_definition(tmp_path, "x")

    run = techdeck("run", definition, TECHDECK_DATABASE_URL="postgresql+psycopg://u:pw@127.0.0.1:1/x")

    assert run.returncode == EXITS["unavailable"]
    assert len(run.stderr.splitlines()) == 1
    assert "127.0.0.1:1/x" in run.stderr
    assert "pw" not in run.stderr


def test_a_broker_that_is_away_is_one_clear_line_and_no_run_is_left_behind(service: Any) -> None:
    definition = write_definition(service.folder, "nobroker")

    run = service.techdeck("run", definition, TECHDECK_REDIS_URL="redis://:pw@127.0.0.1:1/0")

    assert run.returncode == EXITS["unavailable"], run.stderr
    assert len(run.stderr.splitlines()) == 1
    url = make_url(service.settings.database_url.get_secret_value()).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        left = connection.execute("SELECT count(*) FROM pipeline_run WHERE name = 'nobroker'").fetchone()
    assert left == (0,)


def test_a_malformed_setting_is_named_with_its_limit(techdeck: Techdeck) -> None:
    verify = techdeck("audit", "verify", TECHDECK_DEFAULT_MAX_RETRIES="-1")

    assert verify.returncode == EXITS["bad input"]
    assert "TECHDECK_DEFAULT_MAX_RETRIES" in verify.stderr
    assert "greater than or equal to 0" in verify.stderr


def test_an_operator_opens_a_breaker_with_owner_and_reason_and_it_is_on_record(service: Any) -> None:
    opened = service.techdeck("breaker", "open", "lab", "--reason", "maintenance", "--ttl", "5")
    assert opened.returncode == EXITS["ok"], opened.stderr
    assert opened.stdout == "lab is forced-open\n"

    listed = json.loads(service.techdeck("breaker", "list", "--json").stdout)
    assert listed["lab"]["override"]["reason"] == "maintenance"

    assert service.techdeck("breaker", "clear", "lab", "--reason", "done").stdout == "lab is closed\n"
    history = service.techdeck("breaker", "show", "lab")
    assert "maintenance" in history.stdout
    entries = json.loads(service.techdeck("audit", "list", "--service", "breaker", "--json").stdout)
    assert {entry["operation"] for entry in entries} == {"breaker.forced-open", "breaker.clear"}
    assert entries[-1]["document"]["reason"] == "maintenance"


def test_dead_letters_are_listed_page_by_page(service: Any) -> None:
    runtime = runtime_of(create_app(service.settings))
    letters = [
        Letter.of(
            AuthenticationError("refused"),
            kind=LetterKind.DEAD,
            task_name="lab.fetch",
            task_id=f"t-{number}",
            signature={},
            service="lab",
            attempts=1,
            failed_at=runtime.clock.now(),
        )
        for number in range(3)
    ]
    for letter in letters:
        runtime.dead_letters.add(letter)
    try:
        shown = service.techdeck("dead", "list", "--limit", "2").stdout
        cursor = shown.rpartition("more: --cursor ")[2].strip()
        assert letters[0].letter_id[:8] not in shown
        older = service.techdeck("dead", "list", "--limit", "2", "--cursor", cursor)
        assert (letters[0].letter_id[:8] in older.stdout, "more:" in older.stdout) == (True, False)
        first = json.loads(service.techdeck("dead", "list", "--limit", "2", "--cursor", "", "--json").stdout)
        assert [one["task_id"] for one in first["letters"]] == ["t-2", "t-1"]
        assert first["next"] == cursor
    finally:
        for letter in letters:
            runtime.dead_letters.take(letter.letter_id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stats", "--hours", "9" * 30), "less than or equal to 87600"),
        (("trend", "--hours", "0"), "greater than or equal to 1"),
        (("breaker", "show", "a{b"), "no braces"),
        (("breaker", "reset", "", "--reason", "mended"), "1 to 200"),
        (("breaker", "open", "lab", "--reason", "moving", "--ttl", "1e300"), "less than or equal to"),
        (("breaker", "open", "lab", "--reason", " "), "it is empty"),
        (("incidents", "dismiss", "x", "--note", ""), "it is empty"),
        (("dead", "list", "--limit", "9" * 30), "less than or equal to 10000"),
        (("quarantine", "list", "--cursor", "zzz"), "begin again without one"),
    ],
)
def test_a_value_that_cannot_be_is_refused(service: Any, arguments: tuple[str, ...], said: str) -> None:
    refused = service.techdeck(*arguments)
    assert refused.returncode == EXITS["bad input"]
    assert said in " ".join(refused.stderr.replace("│", "").split())
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("dead", "list"),
        ("interventions", "list"),
        ("quarantine", "list"),
        ("breaker", "list"),
        ("worker", "ping"),
    ],
)
def test_a_redis_that_is_away_is_one_clear_line_and_exit_code_3(
    service: Any, arguments: tuple[str, ...]
) -> None:
    away = "redis://:secret-of-redis@127.0.0.1:1/0"
    run = service.techdeck(*arguments, TECHDECK_REDIS_URL=away)
    assert run.returncode == EXITS["unavailable"]
    assert (len(run.stderr.splitlines()), run.stdout) == (1, "")
    assert "secret-of-redis" not in run.stderr


def test_a_terminal_that_is_not_utf_8_gets_what_it_can_show(service: Any) -> None:
    service.techdeck("run", write_definition(service.folder, "plain-letters"))
    ascii_only = {"PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    listed = service.techdeck("list", **ascii_only)
    assert listed.returncode == EXITS["ok"], listed.stderr
    assert listed.stdout.isascii()


def test_an_operator_must_say_why(service: Any) -> None:
    refused = service.techdeck("breaker", "reset", "lab")

    assert refused.returncode == EXITS["bad input"]
    assert "--reason" in refused.stderr


def test_there_are_no_dead_letters_to_begin_with(service: Any) -> None:
    assert service.techdeck("dead", "list").stdout == "there is none\n"
    assert json.loads(service.techdeck("interventions", "list", "--json").stdout) == []

    replayed = service.techdeck("dead", "replay", "nothing", "--reason", "try")
    assert replayed.returncode == EXITS["bad input"]
    assert "no dead letter 'nothing'" in replayed.stderr


def test_keys_are_listed_rotated_and_destroyed(techdeck: Techdeck) -> None:
    assert techdeck("keys", "generate").returncode == 0
    (old,) = _key_ids(techdeck, "message")
    assert techdeck("keys", "rotate", "message").returncode == 0
    assert len(_key_ids(techdeck, "message")) == 2
    refused = techdeck("keys", "destroy", "message", old, "--confirm", "another")
    assert (refused.returncode, old in refused.stderr) == (2, True)
    assert techdeck("keys", "destroy", "message", old, "--confirm", old).returncode == 0
    assert old not in _key_ids(techdeck, "message")
    assert "would hide older rows" in techdeck("keys", "rotate", "blind-index").stderr


def _key_ids(techdeck: Techdeck, purpose: str) -> list[str]:
    listed = json.loads(techdeck("keys", "list", "--json").stdout)
    return [key["key_id"] for key in listed if key["purpose"] == purpose]


def test_an_operator_looks_at_what_was_quarantined_and_drops_it(service: Any) -> None:
    Redis.from_url(service.settings.redis_url.get_secret_value()).lpush("pipeline", b"{no message")
    deadline = time.monotonic() + 20
    while not (found := json.loads(service.techdeck("quarantine", "list", "--json").stdout)):
        assert time.monotonic() < deadline, "not quarantined"
    message_id = found[0]["message_id"]

    shown = json.loads(service.techdeck("quarantine", "show", message_id).stdout)
    refused = service.techdeck("quarantine", "replay", message_id[:8], "--reason", "try")
    dropped = service.techdeck("quarantine", "drop", message_id[:8], "--reason", "junk of a test")

    assert base64.b64decode(shown["body"]) == b"{no message"
    assert refused.returncode == 2
    assert "drop it" in refused.stderr
    assert dropped.returncode == 0
    assert service.techdeck("quarantine", "list").stdout == "there is none\n"


def _fail_a_run(service: Any, name: str) -> None:
    rules = {"columns": {"age": {"le": 35}}, "max_bad_rows": 0}
    stages = [
        {"name": "load", "stage": "dataset_load"},
        {"name": "check", "stage": "validation", "needs": ["load"], "params": rules},
    ]
    definition = write_definition(service.folder, name, stages=stages)
    assert service.techdeck("run", definition).returncode == EXITS["failed"]


def test_entries_are_paged_shown_and_exported(service: Any) -> None:
    _fail_a_run(service, "paged")
    wanted = ("--type", "error_handling", "--code", "VALIDATION_ERROR", "--since", "2020-01-01")

    page = json.loads(
        service.techdeck("audit", "list", *wanted, "--limit", "1", "--cursor", "", "--json").stdout
    )
    entry = page["entries"][0]
    shown = json.loads(service.techdeck("audit", "show", entry["event_id"], "--json").stdout)
    assert shown == entry

    for kind in ("jsonl", "csv"):
        target = service.folder / f"log.{kind}"
        exported = service.techdeck("audit", "export", *wanted, "--format", kind, "--output", str(target))
        assert exported.returncode == EXITS["ok"], exported.stderr
        assert exported.stdout == ""
        assert target.stat().st_mode & 0o777 == 0o600
        assert entry["event_id"] in target.read_text()


def test_a_wrong_filter_is_one_clear_line(service: Any) -> None:
    refused = service.techdeck("audit", "list", "--severity", "dreadful")

    assert refused.returncode == EXITS["bad input"]
    assert refused.stderr == (
        "techdeck: audit search knows no severity 'dreadful'; use low, medium, high, critical\n"
    )


def test_an_incident_is_listed_investigated_and_resolved(service: Any) -> None:
    runtime = runtime_of(create_app(service.settings))
    handled = runtime.handler.handle(AuthenticationError("no such user"), {"service": "ehr"})
    error_id = handled.response["error_id"]

    def listed() -> list[dict[str, Any]]:
        found = json.loads(service.techdeck("incidents", "list", "--json").stdout)
        return [incident for incident in found if incident["error_id"] == error_id]

    deadline = time.monotonic() + 30
    while not listed():
        assert time.monotonic() < deadline, "the incident did not arrive"
    (incident,) = listed()
    assert (incident["state"], incident["severity"], incident["overdue"]) == ("open", "medium", False)
    key = incident["incident_id"]
    assert service.techdeck("incidents", "assign", key, "--to", "jane", "--note", "yours").returncode == 0
    resolved = service.techdeck(
        "incidents", "resolve", key, "--secured", "--note", "mistyped", "--owner", "jane", "--json"
    )
    assert json.loads(resolved.stdout)["state"] == "resolved"
    again = service.techdeck("incidents", "dismiss", key, "--note", "x")
    assert again.returncode == EXITS["bad input"]
    assert "was resolved by jane; that stays" in again.stderr


def test_a_report_is_made_exported_and_signed_off(service: Any) -> None:
    _fail_a_run(service, "reported")

    made = service.techdeck("report", "generate", "--from", "2026-01-01", "--to", "2035-01-01", "--json")
    assert made.returncode == EXITS["ok"], made.stderr
    document = json.loads(made.stdout)
    assert document["total_errors"] >= 1
    key = document["report_id"]
    page = service.folder / "report.html"
    assert service.techdeck("report", "export", key, "--output", str(page)).returncode == EXITS["ok"]
    assert "Compliance report" in page.read_text()

    signed = service.techdeck("report", "sign-off", key, "--note", "read it", "--owner", "officer")
    assert signed.stdout == f"{key} signed off by officer\n"
    again = service.techdeck("report", "sign-off", key, "--note", "read it")
    assert again.returncode == EXITS["bad input"]
    listed = json.loads(service.techdeck("report", "list", "--json").stdout)
    assert [report["reviewed_by"] for report in listed if report["report_id"] == key] == ["officer"]
    assert "officer: read it" in service.techdeck("report", "show", key[:8]).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["stages"], ["stages", "--json"]])
def test_a_full_disk_behind_the_output_is_one_clear_line(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "techdeck_tasks", *arguments],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == EXITS["failed"]
    assert done.stderr == "techdeck: the output cannot be written: No space left on device\n"


def test_a_reader_that_has_seen_enough_ends_the_command_in_silence(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "techdeck_tasks", "stages", "--json"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (EXITS["failed"], "")
