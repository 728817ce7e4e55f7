"""Tasks under a testbed, in this process; the plugin's fixtures are tested in processes of their own."""

from __future__ import annotations

import time
import unittest
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state, chain, chord, current_app, group, shared_task

from techdeck_tasks import RetryPolicy, pipeline_execute
from techdeck_tasks.audit.event import AuditUnavailableError
from techdeck_tasks.errors import (
    CircuitBreakerError,
    FallbackFailedError,
    RetryExhaustedError,
    ServiceUnavailableError,
)
from techdeck_tasks.events import BreakerTransition, ErrorHandled, ExecutionSucceeded, RetryScheduled
from techdeck_tasks.pipeline import StageContext, StageParams, StageResult, stage
from techdeck_tasks.resilience.backoff import Jitter
from techdeck_tasks.runtime import install, runtime_of
from techdeck_tasks.settings import FailPolicy, load_settings
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.services import bound_services
from techdeck_tasks.testing import TechDeckTestbed

HOURLY = RetryPolicy(max_retries=3, delay_s=3600, base=1, cap_s=3600, jitter=Jitter.NONE, budget_s=None)


@pytest.fixture
def bed() -> Iterator[TechDeckTestbed]:
    with TechDeckTestbed() as bed:
        yield bed


def flaky(bed: TechDeckTestbed, failures: int, **options: Any) -> Any:
    @bed.app.task(bind=True, name="lab.fetch", service="lab", **options)
    def fetch(self: Any, order: str = "") -> int:
        if self.request.retries < failures:
            raise ConnectionError("the lab refused")
        return int(self.request.retries)

    return fetch


def test_retries_of_hours_end_at_once_and_move_the_clock(bed: TechDeckTestbed) -> None:
    began, start = time.monotonic(), bed.clock.now()
    fetch = flaky(bed, 2, retry=HOURLY)

    result = fetch.delay("order-1")

    assert result.get() == 2
    assert bed.clock.now() - start == timedelta(hours=2)
    assert time.monotonic() - began < 30
    assert bed.retries_of(fetch) == bed.retries_of(result) == bed.retries_of("lab.fetch") == 2
    bed.assert_retried(result, times=2)
    assert [event.delay_s for event in bed.events.of(RetryScheduled)] == [3600, 3600]
    assert bed.retry_statistics("lab.fetch")["total_retries"] == 2


def test_what_fails_for_good_is_audited_redacted_and_left_as_a_dead_letter(bed: TechDeckTestbed) -> None:
    @bed.app.task(name="lab.send", service="lab", breaker=False)
    def send(password: str) -> None:
        raise ServiceUnavailableError(f"Authorization: Bearer {password} refused")

    result = send.delay("hunter2hunter2")

    assert isinstance(result.result, RetryExhaustedError)
    bed.assert_audited(error_code="SERVICE_UNAVAILABLE", outcome="retry", task_name="lab.send", times=3)
    (last,) = bed.assert_audited(error_code="RETRY_EXHAUSTED", outcome="failed")
    assert "hunter2" not in str(last.document)
    (letter,) = bed.dead_letters.list()
    assert (letter.task_name, letter.attempts) == ("lab.send", 4)


def test_a_dead_letter_is_replayed(bed: TechDeckTestbed) -> None:
    done: list[str] = []

    @bed.app.task(name="lab.note")
    def note(order: str) -> None:
        done.append(order)

    bed.faults.inject(note, ValueError("no"))
    note.delay("order-1")
    (letter,) = bed.dead_letters.list()

    bed.replay(letter)

    assert done == ["order-1"]
    assert bed.dead_letters.count() == 0


def test_a_task_that_asks_for_a_person_waits_and_goes_on(bed: TechDeckTestbed) -> None:
    @bed.app.task(name="lab.read", recovery="request_user_intervention", retry=RetryPolicy(max_retries=0))
    def read() -> str:
        return "read"

    bed.faults.inject("lab.read", ConnectionError("the share is away"))
    result = read.delay()

    assert result.state == "RETRY"
    (letter,) = bed.interventions.list()
    assert bed.retries_of(read) == 0
    assert bed.replay(letter) == result.id
    assert (bed.interventions.count(), bed.dead_letters.count()) == (0, 0)


def test_a_breaker_opens_shuts_tasks_out_and_closes_as_the_clock_goes_on(bed: TechDeckTestbed) -> None:
    fetch = flaky(bed, 0, retry=RetryPolicy(max_retries=0))
    bed.faults.inject(fetch, ConnectionError("away"), times=5)
    for _ in range(5):
        fetch.delay()

    bed.assert_breaker("lab", "open")
    assert bed.breaker("lab").failure_count == 5
    assert isinstance(fetch.delay().result, CircuitBreakerError)
    bed.clock.sleep(61)
    for _ in range(2):
        assert fetch.delay().get() == 0
    bed.assert_breaker("lab", "closed")
    assert [event.new_state for event in bed.events.of(BreakerTransition)] == ["open", "half-open", "closed"]


def test_a_fallback_task_stands_in_also_in_a_chain(bed: TechDeckTestbed) -> None:
    @bed.app.task(name="lab.cached")
    def cached(order: str) -> dict[str, str]:
        return {"order": order}

    @bed.app.task(name="lab.order")
    def order_of(found: dict[str, str]) -> str:
        return found["order"]

    fetch = flaky(bed, 99, fallback="lab.cached", breaker=False)

    found = fetch.delay("order-1").get()
    assert (found["order"], found["_fallback"]) == ("order-1", True)
    assert chain(fetch.s("order-2"), order_of.s())().get() == "order-2"
    bed.assert_audited(outcome="fallback", times=2)
    assert [event.fallback for event in bed.events.of(ExecutionSucceeded)] == [True, True, False]
    bed.faults.inject(cached, ValueError("empty"))
    assert isinstance(fetch.delay("order-3").result, FallbackFailedError)


def test_canvas_and_own_retries_work(bed: TechDeckTestbed) -> None:
    @bed.app.task(name="sum")
    def total(*numbers: Any) -> int:
        return sum(sum(number) if isinstance(number, list) else number for number in numbers)

    @bed.app.task(name="own", bind=True)
    def own(self: Any, number: int) -> int:
        if self.request.retries < 2:
            raise self.retry(exc=ConnectionError("again"), countdown=3600)
        self.update_state(state="PROGRESS", meta={"number": number})
        return number

    @bed.app.task(name="auto", autoretry_for=(KeyError,), retry_backoff=3600)
    def auto() -> str:
        return "auto"

    result = own.delay(4)
    assert result.get() == 4
    bed.assert_retried(result, times=2)
    assert chain(own.s(1), total.s(2))().get() == 3
    assert chord(group(total.s(1), total.s(2)), total.s(3))().get() == 6
    bed.faults.inject(auto, KeyError("k"), times=2)
    assert auto.delay().get() == "auto"
    bed.assert_retried(auto, times=2)
    with bed.faults.inject(total, ValueError("no")), pytest.raises(ValueError, match="no"):
        # Celery raises at once what fails inside an eager chain.
        chain(total.s(1), total.s(2))()


def test_a_trail_that_is_away_ends_the_task_where_the_policy_is_closed() -> None:
    with TechDeckTestbed(audit_fail_policy={"medium": FailPolicy.CLOSED}) as bed:
        fetch = flaky(bed, 1)
        bed.audit.away = True
        assert isinstance(fetch.delay().result, AuditUnavailableError)
        assert len(bed.audit) == 0


def test_a_trail_that_is_away_is_told_in_numbers_where_work_may_go_on(bed: TechDeckTestbed) -> None:
    fetch = flaky(bed, 1)
    bed.audit.away = True
    assert fetch.delay().get() == 1
    assert bed.audit.lost == 1


def test_a_direct_call_is_the_plain_function_and_meets_no_failure(bed: TechDeckTestbed) -> None:
    fetch = flaky(bed, 0)
    bed.faults.inject(fetch, ValueError("no"))
    assert fetch() == 0


# -- pipelines -----------------------------------------------------------------------------------------


def pipeline(folder: Path, *stages: dict[str, Any]) -> dict[str, Any]:
    (folder / "people.csv").write_text("name,age\nAda,36\nBob,51\n")
    return {"name": "people", "source": {"url": str(folder / "people.csv")}, "stages": list(stages)}


def test_a_pipeline_runs_whole_and_a_stage_recovers(bed: TechDeckTestbed, tmp_path: Path) -> None:
    load = {"name": "load", "stage": "dataset_load"}
    export = {
        "name": "out",
        "stage": "export",
        "needs": ["load"],
        "params": {"destination": str(tmp_path / "out.csv")},
    }
    with bed.faults.inject("load", ConnectionError("the share is away"), times=2) as fault:
        result = pipeline_execute.delay(pipeline(tmp_path, load, export))

    assert result.get() == {"run_id": result.id, "state": "succeeded"}
    assert (tmp_path / "out.csv").read_text() == "name,age\nAda,36\nBob,51\n"
    run = bed.run(result)
    assert (run.stage("load").attempt, run.stage("load").error_code) == (2, "CONNECTION_ERROR")
    assert fault.struck == bed.retries_of("techdeck.stage.dataset_load") == 2
    bed.assert_audited(pipeline_id=result.id, stage="load", outcome="retry", times=2)


def test_a_kind_of_stage_fails_for_good_and_leaves_the_rest(bed: TechDeckTestbed, tmp_path: Path) -> None:
    bed.faults.inject("dataset_load", PermissionError("no"), times=100)
    after = {
        "name": "export",
        "needs": ["dataset_load"],
        "params": {"destination": str(tmp_path / "out.csv")},
    }

    run = bed.run(pipeline_execute.delay(pipeline(tmp_path, {"name": "dataset_load"}, after)))

    assert [str(one.state) for one in run.stages] == ["failed", "skipped"]
    assert run.state == "failed"


def test_a_long_pipeline_with_a_stage_of_the_test_itself_does_not_nest(
    bed: TechDeckTestbed, tmp_path: Path
) -> None:
    @stage("test_bed", params=StageParams, summary="hands nothing on")
    def nothing(context: StageContext, params: StageParams) -> StageResult:
        return StageResult(report={"attempt": context.attempt})

    stages = [
        {"name": f"s{number}", "stage": "test_bed", "needs": [f"s{number - 1}"] if number else []}
        for number in range(60)
    ]
    assert pipeline_execute.delay(pipeline(tmp_path, *stages)).get()["state"] == "succeeded"
    assert len(bed.events.of(ExecutionSucceeded)) == 61


# -- messages ------------------------------------------------------------------------------------------


def test_failed_assertions_tell_what_was_wanted_and_what_happened(bed: TechDeckTestbed) -> None:
    with pytest.raises(
        AssertionError, match=r"lab.fetch was to be retried and was 0 x.\nNothing is on record"
    ):
        bed.assert_retried("lab.fetch")
    fetch = flaky(bed, 1)
    fetch.delay()
    with pytest.raises(AssertionError) as retried:
        bed.assert_retried(fetch, times=2)
    assert "lab.fetch was to be retried 2 x and was 1 x.\nOn record:\n  retry      CONNECTION_ERROR" in str(
        retried.value
    )
    assert "lab.fetch attempt=0 service=lab: the lab refused" in str(retried.value)
    with pytest.raises(AssertionError, match="2 events with outcome='failed' wanted, 0 on record"):
        bed.assert_audited(outcome="failed", times=2)
    with pytest.raises(AssertionError, match="'lab' was to be open and is closed"):
        bed.assert_breaker("lab", "open")
    with pytest.raises(TypeError, match="no column error_kode; it has attempt, "):
        bed.audit.entries(error_kode="X")
    with (
        pytest.raises(AssertionError, match=r"injected into 'lab.fecth' was never met"),
        bed.faults.inject("lab.fecth", ValueError("no")),
    ):
        fetch.delay()
    with pytest.raises(ValueError, match="times is 0"):
        bed.faults.inject(fetch, ValueError("no"), times=0)


# -- an application of the user's own ------------------------------------------------------------------


def test_an_application_is_lent_and_given_back_as_it_was(tmp_path: Path) -> None:
    app = Celery("lab", set_as_current=False)
    install(app, load_settings(redis_url="redis://127.0.0.1:1/0", keys_dir=tmp_path / "no-keys"))
    runtime = runtime_of(app)

    @app.task(base=TechDeckTask, name="lab.double", shared=False)
    def double(number: int) -> int:
        return 2 * number

    before, body, names = dict(app.conf.changes), double.run, set(app.tasks)
    current = current_app._get_current_object()
    with TechDeckTestbed(app) as bed:
        assert current_app._get_current_object() is app
        bed.faults.inject(double, ConnectionError("away"))
        # Bound before: its arguments go through the encrypted serializer, with the testbed's key.
        assert double.delay(4).get() == 8
        bed.assert_retried(double, times=1)

    assert bound_services(app) is runtime
    assert (dict(app.conf.changes), set(app.tasks)) == (before, names)
    assert double.run == body
    assert app._backend_cache is None
    assert current_app._get_current_object() is current


def test_shared_tasks_find_the_application_and_fresh_ones_leak_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Celery hands a shared task to every later application of the process; not this one.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))

    def own() -> str:
        return "own"

    @shared_task(name="test_shared", base=TechDeckTask)
    def shared() -> str:
        return "shared"

    for _ in range(2):
        with TechDeckTestbed() as bed:
            assert "own.only" not in bed.app.tasks
            bed.app.task(own, name="own.only")
            assert shared.delay().get() == "shared"
            assert [event.outcome for event in bed.events.of(ErrorHandled)] == []


def test_settings_are_the_test_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TECHDECK_DEFAULT_MAX_RETRIES", "7")
    with TechDeckTestbed(default_max_retries=1) as bed:
        fetch = flaky(bed, 9)
        fetch.delay()
        bed.assert_retried(fetch, times=1)
    assert TechDeckTestbed().runtime.settings.default_max_retries == 3
    with pytest.raises(ValueError, match="default_max_retrys"):
        TechDeckTestbed(default_max_retrys=1)


def test_there_is_no_redis_and_it_says_so(bed: TechDeckTestbed) -> None:
    with pytest.raises(RuntimeError, match="a testbed has no Redis"):
        bed.runtime.quarantine  # noqa: B018 - reading it is the test


class WithoutPytest(unittest.TestCase):
    def setUp(self) -> None:
        self.techdeck = self.enterContext(TechDeckTestbed())

    def test_it_works_in_a_plain_test_case(self) -> None:
        fetch = flaky(self.techdeck, 1)
        self.assertEqual(fetch.delay().get(), 1)  # noqa: PT009 - the other framework
        self.techdeck.assert_audited(outcome="retry", times=1)


def test_what_ran_is_counted(bed: TechDeckTestbed) -> None:
    flaky(bed, 2, retry=HOURLY).delay()
    since = bed.clock.now() - timedelta(hours=3)

    statistics = bed.metrics.get_error_statistics(
        {"start": since, "end": bed.clock.now() + timedelta(minutes=1)}
    )

    assert statistics["total_errors"] == 2
    assert statistics["error_distribution"] == {"CONNECTION_ERROR": 100.0}
    assert statistics["error_rate"] == pytest.approx(200 / 3)
