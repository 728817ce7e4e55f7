from __future__ import annotations

import pytest
from celery import signals
from pydantic import SecretStr
from redis import Redis

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.cli.doctor import Verdict, examine, judge_beat
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings


def test_servers_and_keys_that_are_well_are_told_from_workers_that_do_not_run(runtime: Runtime) -> None:
    checks = {check.name: check for check in examine(runtime)}
    for name in ("Redis", "Redis eviction", "Redis clock", "PostgreSQL schema", "reader's key"):
        assert checks[name].verdict is Verdict.OK, checks[name]
    assert checks["pipeline worker"].verdict is Verdict.BAD
    assert all(check.remedy for check in checks.values() if check.verdict is not Verdict.OK)


def test_a_misspelt_variable_is_named_with_what_it_was_to_be(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TECHDECK_DATA_ROOT", '["/data"]')
    monkeypatch.setenv("TECHDECK_WEB_SERVICE_HOST", "10.0.0.1")  # Kubernetes names a service so
    told = [check for check in examine(runtime) if check.name == "settings"]
    assert [check.verdict for check in told] == [Verdict.OK, Verdict.WARN]
    assert told[1].found.startswith("TECHDECK_DATA_ROOT ")
    assert told[1].remedy == "did you mean TECHDECK_DATA_ROOTS?"


def test_servers_that_are_away_keep_no_other_check_from_being_made(settings: Settings) -> None:
    away = {
        "redis_url": SecretStr("redis://127.0.0.1:1/0"),
        "database_url": SecretStr("postgresql+psycopg://u:pw@127.0.0.1:1/x"),
    }
    checks = {
        check.name: check for check in examine(runtime_of(create_app(settings.model_copy(update=away))))
    }
    for name in ("Redis", "PostgreSQL", "workers"):
        assert checks[name].verdict is Verdict.BAD
        assert checks[name].remedy
    assert checks["key message.json"].verdict is Verdict.OK
    assert "disk of artifacts" in checks


def test_a_beat_that_was_just_started_is_starting_and_not_bad(
    runtime: Runtime, redis_client: Redis, settings: Settings
) -> None:
    def beat() -> tuple[Verdict, str]:
        (check,) = [check for check in examine(runtime) if check.name == "beat"]
        return check.verdict, check.found

    assert redis_client.dbsize() == 0
    assert beat() == (Verdict.BAD, "its tasks were never run")
    create_app(settings, role=Role.BEAT)
    signals.beat_init.send(sender=None)
    verdict, found = beat()
    assert verdict is Verdict.WARN
    assert found.startswith("starting: it began ")


@pytest.mark.parametrize(
    ("began_s", "ran_s", "verdict"),
    [
        (5, 3, Verdict.OK),
        (None, 3, Verdict.OK),
        (5, None, Verdict.WARN),
        (5, 86_400, Verdict.WARN),  # restarted after a day
        (31, None, Verdict.BAD),
        (86_400, 61, Verdict.BAD),
        (None, None, Verdict.BAD),
    ],
)
def test_a_beat_is_judged_by_its_start_and_its_last_task(
    began_s: float | None, ran_s: float | None, verdict: Verdict
) -> None:
    assert judge_beat(began_s, ran_s).verdict is verdict
