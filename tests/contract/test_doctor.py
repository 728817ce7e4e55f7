from __future__ import annotations

from pydantic import SecretStr

from techdeck_tasks.cli.doctor import Verdict, examine
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import Settings


def test_servers_and_keys_that_are_well_are_told_from_workers_that_do_not_run(runtime: Runtime) -> None:
    checks = {check.name: check for check in examine(runtime)}
    for name in ("Redis", "Redis eviction", "Redis clock", "PostgreSQL schema", "reader's key"):
        assert checks[name].verdict is Verdict.OK, checks[name]
    assert checks["pipeline worker"].verdict is Verdict.BAD
    assert all(check.remedy for check in checks.values() if check.verdict is not Verdict.OK)


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
