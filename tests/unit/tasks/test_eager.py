"""Tasks in the caller's process: eager mode, and applications that were never installed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, group
from celery.exceptions import Ignore, Reject, Retry

from techdeck_tasks.audit.event import AuditEvent, AuditUnavailableError
from techdeck_tasks.errors import RetryExhaustedError, ServiceUnavailableError, TechDeckError
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.resilience.backoff import RetryPolicy
from techdeck_tasks.runtime import install, runtime_of
from techdeck_tasks.settings import FailPolicy, Settings
from techdeck_tasks.tasks.base import TechDeckTask

TWICE = RetryPolicy(max_retries=2, delay_s=50)


class Noted(TechDeckTask):
    """Remembers what its hooks were told."""

    abstract = True
    notes: list[str]

    def on_retry_scheduled(
        self,
        error: TechDeckError,
        attempt: int,
        delay_s: float,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.notes.append(f"retry {attempt}")

    def on_given_up(self, error: TechDeckError, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.notes.append(f"given up {error.error_code}")
        raise RuntimeError("a hook that fails")

    def error_context(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RuntimeError("another hook that fails")


def declare(app: Celery, body: Any, **options: Any) -> Any:
    base = options.pop("base", TechDeckTask)
    name = f"task-{len(app.tasks)}"
    app.task(body, name=name, base=base, bind=True, shared=False, **options)
    return app.tasks[name]


def fails(times: int, error: Exception) -> Any:
    def body(self: Any, *args: Any) -> int:
        if self.request.retries < times:
            raise error
        return int(self.request.retries)

    return body


def total(self: Any, *numbers: int) -> int:
    return sum(numbers)


@pytest.mark.parametrize("way", ["delay", "apply"])
def test_retries_happen_at_once_and_keep_the_id(app: Celery, way: str) -> None:
    task = declare(app, fails(2, ConnectionError("refused")), retry=TWICE)
    result = getattr(task, way)()
    assert result.get() == 2


def test_exhausted_retries_end_with_the_last_error(app: Celery) -> None:
    task = declare(app, fails(9, ConnectionError("refused")), retry=TWICE)
    with pytest.raises(RetryExhaustedError) as told:
        task.delay().get()
    assert told.value.details["last_error_code"] == "CONNECTION_ERROR"


def test_hooks_that_fail_hide_nothing_and_are_told_everything(app: Celery) -> None:
    task = declare(app, fails(9, ConnectionError("refused")), retry=TWICE, base=Noted, notes=[])
    assert isinstance(task.delay().result, RetryExhaustedError)
    assert task.notes == ["retry 0", "retry 1", "given up RETRY_EXHAUSTED"]


def test_control_flow_passes(app: Celery) -> None:
    for control in (Ignore(), Reject("no", requeue=False)):
        task = declare(app, fails(9, control))
        assert task.apply().state in {"IGNORED", "REJECTED"}


def test_chains_and_groups_work(app: Celery) -> None:
    add = declare(app, total)
    assert chain(add.s(1, 2), add.s(3))().get() == 6
    assert group(add.s(1), add.s(2))().get() == [1, 2]


def test_a_traceback_shows_the_body_and_no_cause(app: Celery) -> None:
    def body(self: Any) -> None:
        try:
            raise KeyError("password=hunter2hunter2")  # noqa: TRY301 - the cause to be hidden
        except KeyError as inner:
            raise ValueError("plain") from inner

    result = declare(app, body).apply()
    assert "in body" in result.traceback
    assert "KeyError: " not in result.traceback


def test_what_can_be_audited_nowhere_ends_as_that(app: Celery, tmp_path: Path) -> None:
    class Full:
        def record(self, event: AuditEvent) -> None:
            raise AuditUnavailableError("the disk is full")

    runtime = runtime_of(app)
    runtime.handler = ErrorHandler(
        audit=Full(),
        listeners=runtime.listeners,
        clock=runtime.clock,
        retention_days=1,
        documentation_base_url="",
    )
    task = declare(app, fails(9, ConnectionError("refused")), retry=TWICE, base=Noted, notes=[])
    assert isinstance(task.delay().result, AuditUnavailableError)
    assert task.notes == ["given up AUDIT_UNAVAILABLE"]


@pytest.mark.parametrize(
    ("policy", "ended_as"),
    [
        (FailPolicy.CLOSED, AuditUnavailableError),
        (FailPolicy.SPOOL, RetryExhaustedError),
        (FailPolicy.OPEN, RetryExhaustedError),
    ],
)
def test_a_fail_closed_task_does_not_go_on_unaudited_and_any_other_does(
    lone_settings: Settings, policy: FailPolicy, ended_as: type[Exception]
) -> None:
    # Neither Redis nor the spool takes anything.
    policies = dict.fromkeys(("low", "medium", "high", "critical"), policy)
    full = lone_settings.model_copy(update={"audit_spool_max_bytes": 1, "audit_fail_policy": policies})
    app = Celery("full", set_as_current=False)
    install(app, full)
    app.conf.task_always_eager = True
    attempts = []

    def body(self: Any) -> None:
        attempts.append(self.request.retries)
        raise ServiceUnavailableError("away")

    task = declare(app, body, retry=TWICE, base=Noted, notes=[])
    assert isinstance(task.delay().result, ended_as)
    assert attempts == ([0] if policy is FailPolicy.CLOSED else [0, 1, 2])
    assert ("given up AUDIT_UNAVAILABLE" in task.notes) == (policy is FailPolicy.CLOSED)


def test_an_application_that_was_never_installed_works_without_keys_or_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TECHDECK_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TECHDECK_CONNECTION_RESET_DELAY_SECONDS", "0")
    bare = Celery("bare", broker="memory://", backend="cache+memory://", set_as_current=False)
    bare.conf.task_always_eager = True
    began = time.monotonic()
    assert declare(bare, total).delay(5).get() == 5
    failing = declare(bare, fails(9, ServiceUnavailableError("away")), retry=TWICE)
    assert isinstance(failing.delay().result, RetryExhaustedError)
    assert isinstance(declare(bare, fails(9, ValueError("no"))).delay().result, ValueError)
    assert time.monotonic() - began < 5
    assert "not audited: error_id=" in caplog.text
    assert bare.conf.task_serializer == "json"
    assert not list(tmp_path.rglob("*.spool"))


def test_what_celerys_own_retry_was_raised_over_does_not_leave_the_attempt(app: Celery) -> None:
    app.conf.task_eager_propagates = True
    auto = declare(app, fails(1, KeyError("mia@clinic.test")), autoretry_for=(KeyError,))
    with pytest.raises(Retry) as caught:
        auto.delay()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "mia" not in str(caught.value)
