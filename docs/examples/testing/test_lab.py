from datetime import timedelta
from pathlib import Path

import lab
import pytest
from celery import chain

from techdeck_tasks import pipeline_execute
from techdeck_tasks.errors import CircuitBreakerError, ServiceUnavailableError
from techdeck_tasks.events import RetryScheduled
from techdeck_tasks.testing import TechDeckTestbed
from techdeck_tasks.testing.clock import FakeClock
from techdeck_tasks.testing.faults import Faults


def test_a_laboratory_that_is_away_twice_costs_two_retries(
    techdeck: TechDeckTestbed, techdeck_clock: FakeClock
) -> None:
    techdeck.faults.inject(lab.fetch_results, ServiceUnavailableError("no answer"), times=2)
    began = techdeck_clock.now()

    result = lab.fetch_results.delay("order-1")

    assert result.get()["results"] == [4.2]
    assert techdeck.retries_of(result) == 2
    techdeck.assert_audited(error_code="SERVICE_UNAVAILABLE", outcome="retry", times=2)
    # What a worker would have waited, twice 10 minutes give or take 25 %, has passed on this clock alone.
    assert techdeck_clock.now() - began >= timedelta(minutes=15)
    assert [event.attempt for event in techdeck.events.of(RetryScheduled)] == [0, 1]


def test_a_laboratory_that_stays_away_is_replaced_by_what_is_cached(
    techdeck: TechDeckTestbed, techdeck_faults: Faults
) -> None:
    techdeck_faults.inject("lab.fetch_results", ConnectionError("refused"), times=4)

    sent = chain(lab.fetch_results.s("order-1"), lab.send_report.s())()

    assert sent.get() == "report on order-1"
    techdeck.assert_audited(outcome="fallback", task_name="lab.fetch_results", times=1)
    techdeck.assert_retried(lab.send_report, times=1)


def test_secrets_reach_neither_the_audit_log_nor_the_caller(techdeck: TechDeckTestbed) -> None:
    techdeck.faults.inject(lab.send_report, ValueError("token=ghp_abcdefghijklmnopqrstuvwxyz0123456789"))

    result = lab.send_report.delay({"order_id": "order-1", "results": [4.2]})

    (entry,) = techdeck.assert_audited(outcome="failed", service="mail")
    assert "ghp_" not in f"{entry.document} {result.result} {result.traceback}"
    (letter,) = techdeck.dead_letters.list()
    assert letter.task_name == "lab.send_report"
    techdeck.replay(letter)
    assert techdeck.dead_letters.count() == 0


def test_many_failures_shut_tasks_out_for_a_minute(
    techdeck: TechDeckTestbed, techdeck_clock: FakeClock
) -> None:
    for _ in range(5):
        techdeck.runtime.breakers.record_failure("mail")
    found = {"order_id": "order-1", "results": [4.2]}

    techdeck.assert_breaker("mail", "open")
    with pytest.raises(CircuitBreakerError):
        lab.send_report.delay(found).get()
    techdeck_clock.sleep(61)
    assert lab.send_report.delay(found).get() == "report on order-1"
    techdeck.assert_breaker("mail", "half-open")


def test_a_pipeline_with_a_stage_of_our_own(techdeck: TechDeckTestbed, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("name,age\nAda,36\nBob,51\nCid,44\n")
    definition = {
        "name": "people",
        "source": {"url": str(tmp_path / "people.csv")},
        "stages": [
            {"name": "load", "stage": "dataset_load"},
            {"name": "first", "stage": "head", "needs": ["load"], "params": {"rows": 2}},
            {
                "name": "out",
                "stage": "export",
                "needs": ["first"],
                "params": {"destination": str(tmp_path / "out.csv")},
            },
        ],
    }
    with techdeck.faults.inject("first", ConnectionError("the share is away")):
        result = pipeline_execute.delay(definition)

    assert result.get()["state"] == "succeeded"
    assert (tmp_path / "out.csv").read_text() == "name,age\nAda,36\nBob,51\n"
    first = techdeck.run(result).stage("first")
    assert (first.attempt, first.rows_done, first.report) == (1, 2, {"limit": 2})
    techdeck.assert_audited(pipeline_id=result.id, stage="first", outcome="retry", times=1)
