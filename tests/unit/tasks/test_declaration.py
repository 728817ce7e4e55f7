"""What may be declared on a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from techdeck_tasks.resilience.backoff import MAX_RETRIES_LIMIT, RetryPolicy
from techdeck_tasks.resilience.breaker.core import is_breaker_name
from techdeck_tasks.runtime import install
from techdeck_tasks.settings import Settings, SettingsError
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.guard import breaker_name
from techdeck_tasks.tasks.visibility import refuse_long_countdowns

LONG = RetryPolicy(max_retries=2, delay_s=9000, cap_s=9000, budget_s=None)


def test_a_policy_that_may_wait_longer_than_the_visibility_timeout_is_refused_with_both_numbers(
    app: Celery,
) -> None:
    @app.task(base=TechDeckTask, retry=LONG, shared=False)
    def slow() -> None: ...

    with pytest.raises(SettingsError, match=r"9000 s.*visibility_timeout of 7200 s"):
        app.finalize()


def test_it_is_refused_too_where_the_application_was_installed_after_the_task_was_bound(
    lone_settings: Settings,
) -> None:
    late = Celery("late", broker="memory://", set_as_current=False)

    @late.task(base=TechDeckTask, retry=LONG, shared=False, lazy=False)
    def slow() -> None: ...

    install(late, lone_settings)
    with pytest.raises(SettingsError, match="visibility_timeout"):
        late.tasks[slow.name].start_strategy(late, object())


@pytest.mark.parametrize(
    ("broker", "refused"), [("redis://h/0", True), ("rediss://h/0", True), ("amqp://h//", False)]
)
def test_without_a_setting_kombus_default_counts_and_only_on_redis(broker: str, refused: bool) -> None:
    app = Celery("bare", broker=broker, set_as_current=False)
    policy = RetryPolicy(cap_s=4000, retry_after_cap_s=4000, budget_s=4000)
    if refused:
        with pytest.raises(SettingsError, match="3600 s"):
            refuse_long_countdowns("t", policy, app)
    else:
        refuse_long_countdowns("t", policy, app)


def test_a_policy_that_never_retries_may_be_as_long_as_it_likes(app: Celery) -> None:
    refuse_long_countdowns("t", RetryPolicy(max_retries=0, cap_s=99_999), app)


def test_the_policy_is_the_declared_one_else_the_settings_with_celerys_own_max_retries(app: Celery) -> None:
    def declare(**options: Any) -> TechDeckTask:
        name = f"declared-{len(app.tasks)}"
        app.task(_nothing, name=name, base=TechDeckTask, shared=False, **options)
        task: TechDeckTask = app.tasks[name]
        return task

    own = RetryPolicy(max_retries=7)
    assert declare(retry=own).effective_policy is own
    assert declare().effective_policy == declare().services.retry_policy
    assert declare(max_retries=1).effective_policy.max_retries == 1
    assert declare(max_retries=0).effective_policy.max_retries == 0
    assert declare(max_retries=None).effective_policy.max_retries == MAX_RETRIES_LIMIT
    assert callable(declare(retry=own).retry)


def _nothing() -> None: ...


def test_results_are_kept_out_of_logs_for_every_task_of_the_application(app: Celery) -> None:
    @app.task(shared=False)
    def plain() -> None: ...

    assert app.tasks[plain.name].resultrepr_maxsize == 0


async def a_coroutine() -> None: ...


def a_generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("body", [a_coroutine, a_generator])
def test_a_body_of_which_nothing_would_run_is_refused_when_it_is_declared(
    app: Celery, body: Callable[[], object]
) -> None:
    with pytest.raises(TypeError, match=r"asyncio\.run"):
        app.task(base=TechDeckTask, name="idle", shared=False, lazy=False)(body)


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("lab {north}", "lab (north)"),
        ("lab\r\nnorth", "lab??north"),
        ("half \ud800", "half ?"),
        ("x" * 300, "x" * 200),
        ("Größe 😀", "Größe 😀"),
    ],
)
def test_a_service_of_any_name_has_a_breaker(service: str, name: str) -> None:
    assert breaker_name(True, service) == name
    assert is_breaker_name(name)
