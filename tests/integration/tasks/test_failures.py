"""What becomes of a failing task, with a real worker."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain
from celery.exceptions import MaxRetriesExceededError
from sample_app import SECRET, PatientError
from worker_site import Sample, WorkerProcess, wait_until

from techdeck_tasks.errors import RetryExhaustedError, ServiceUnavailableError, TechDeckError, ValidationError


def test_a_failure_that_may_pass_is_retried_until_it_passes(sample: Sample) -> None:
    result = sample.task("flaky").delay(2)
    assert result.get(timeout=30) == 2
    assert sample.audited(result.id) == [
        (0, "retry", "SERVICE_UNAVAILABLE"),
        (1, "retry", "SERVICE_UNAVAILABLE"),
    ]


def test_exhausted_retries_end_with_the_last_code_and_an_error_id_each(sample: Sample) -> None:
    task_id, error = sample.failure("foreign")
    assert isinstance(error, RetryExhaustedError)
    assert error.details["last_error_code"] == "CONNECTION_ERROR"
    assert error.details["attempts"] == 4
    audited = sample.audited(task_id)
    assert audited == [(attempt, "retry", "CONNECTION_ERROR") for attempt in range(3)] + [
        (3, "failed", "RETRY_EXHAUSTED")
    ]
    assert SECRET not in str(error.to_dict())


def test_retries_wait_as_the_policy_says(sample: Sample) -> None:
    sample.run("flaky", 3)
    scheduled = [facts for kind, facts in sample.events("flaky") if kind == "RetryScheduled"][-3:]
    assert [facts["attempt"] for facts in scheduled] == [0, 1, 2]
    assert [facts["delay_s"] for facts in scheduled] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize(("name", "attempts"), [("never_again", 1), ("declared_once", 2), ("out_of_time", 3)])
def test_retries_end_by_count_by_celerys_own_option_and_by_time(
    sample: Sample, name: str, attempts: int
) -> None:
    task_id, error = sample.failure(name)
    assert isinstance(error, TechDeckError)
    assert len(sample.audited(task_id)) == attempts
    assert sample.hooks(task_id)[-1].startswith("given up")
    if name == "out_of_time":
        assert "time budget spent" in error.message


def test_a_server_that_names_the_time_of_the_next_attempt_is_obeyed(sample: Sample) -> None:
    result = sample.task("rate_limited").delay()
    assert result.get(timeout=30) == 1
    first, second = (float(x) for x in _strings(sample, f"test:times:{result.id}"))
    assert 0.95 <= second - first < 3


def test_success_and_retries_are_told_to_listeners(sample: Sample) -> None:
    sample.redis.delete("test:events")
    sample.run("flaky", 1)
    told = [
        (kind, facts["attempt"], facts["error_code"], facts["outcome"])
        for kind, facts in sample.events("flaky")
    ]
    assert told == [
        ("ErrorHandled", 0, "SERVICE_UNAVAILABLE", "retry"),
        ("RetryScheduled", 0, "SERVICE_UNAVAILABLE", None),
        ("ExecutionSucceeded", 1, None, None),
    ]


def test_a_foreign_exception_keeps_its_type_and_loses_its_secret(
    sample: Sample, worker: WorkerProcess
) -> None:
    result = sample.task("leaky").delay("x")
    error = sample.failure_of(result)
    assert type(error) is ValueError
    assert str(error).startswith("bad row")
    assert SECRET not in f"{error} {result.traceback} {error.__cause__} {error.__context__}"
    assert "inner api_key" not in result.traceback
    assert SECRET not in worker.output()


def test_an_applications_own_exception_reaches_the_caller_as_it_is(sample: Sample) -> None:
    _, error = sample.failure("own_error", "row 7 is empty")
    assert isinstance(error, PatientError)
    assert error.args == ("row 7 is empty",)


def test_an_exception_that_cannot_be_pickled_still_ends_the_task(sample: Sample) -> None:
    task_id, error = sample.failure("unpicklable")
    assert "Unpicklable" in repr(error)
    assert sample.audited(task_id) == [(0, "failed", "INTERNAL_ERROR")]


@pytest.mark.parametrize("name", ["unpicklable_result", "result_out_of_memory"])
def test_a_result_that_cannot_be_stored_is_audited_and_given_up(sample: Sample, name: str) -> None:
    task_id, _ = sample.failure(name)
    # Celery stores the failure first.
    wait_until(lambda: sample.hooks(task_id), "given up")
    assert [outcome for _, outcome, _ in sample.audited(task_id)] == ["failed"]
    assert len(sample.hooks(task_id)) == 1


def test_a_memory_error_ends_the_task_and_not_the_worker(sample: Sample) -> None:
    task_id, error = sample.failure("out_of_memory")
    assert isinstance(error, TechDeckError)
    assert SECRET not in str(error.to_dict())
    assert sample.audited(task_id) == [(0, "failed", "WORKER_LOST")]
    assert sample.run("ok", 1) == 1


def test_a_soft_time_limit_is_a_timeout_and_retried(sample: Sample) -> None:
    result = sample.task("overrun").delay()
    assert result.get(timeout=30) == 1
    assert sample.audited(result.id) == [(0, "retry", "TIMEOUT_ERROR")]


def test_a_generator_exit_out_of_the_body_fails_the_task_and_is_audited(
    sample: Sample, worker: WorkerProcess
) -> None:
    result = sample.task("generator_exit").delay()
    assert isinstance(result.get(timeout=30, propagate=False), GeneratorExit)
    wait_until(lambda: sample.audited(result.id), "audited")
    assert [outcome for _, outcome, _ in sample.audited(result.id)] == ["failed"]
    assert SECRET not in worker.output()


def test_a_task_may_retry_by_itself_and_leaks_nothing(sample: Sample, worker: WorkerProcess) -> None:
    assert sample.run("manual", 2) == 2
    _, error = sample.failure("manual", 9)
    assert type(error) is ValueError
    _, error = sample.failure("manual_bare", "Cassandra Canary")
    assert isinstance(error, MaxRetriesExceededError)
    assert "Cassandra" not in str(error)
    assert SECRET not in worker.output()
    assert "Cassandra" not in worker.output()


def test_autoretry_comes_before_the_policy_and_each_attempt_is_audited(sample: Sample) -> None:
    assert sample.run("auto", 2) == 2
    task_id, error = sample.failure("auto", 9)
    assert type(error) is LookupError
    assert sample.audited(task_id) == [
        (0, "retry", "INTERNAL_ERROR"),
        (1, "retry", "INTERNAL_ERROR"),
        (2, "failed", "INTERNAL_ERROR"),
    ]


@pytest.mark.parametrize("name", ["auto_away", "manual_away"])
def test_the_policy_adds_no_attempt_to_those_that_celery_was_told_of(
    sample: Sample, worker: WorkerProcess, name: str
) -> None:
    task_id, error = sample.failure(name)
    assert isinstance(error, RetryExhaustedError)
    assert sample.audited(task_id) == [(0, "retry", "CONNECTION_ERROR"), (1, "failed", "RETRY_EXHAUSTED")]
    assert SECRET not in worker.output()


def test_a_retry_out_of_an_except_clause_is_audited_and_one_without_an_error_is_none(sample: Sample) -> None:
    failing = sample.task("manual_in_except").delay()
    assert failing.get(timeout=30) == 1
    assert sample.audited(failing.id) == [(0, "retry", "CONNECTION_ERROR")]
    polling = sample.task("polls").delay()
    assert polling.get(timeout=30) == 1
    assert sample.audited(polling.id) == []


def test_a_task_run_in_place_that_would_try_again_fails_the_task_around_it(sample: Sample) -> None:
    task_id, error = sample.failure("runs_another_in_place")
    assert isinstance(error, ConnectionError)
    assert SECRET not in str(error)
    assert sample.audited(task_id) == [(0, "failed", "CONNECTION_ERROR")]


def test_a_task_that_expires_before_its_next_attempt_fails_at_once_instead_of_vanishing(
    sample: Sample,
) -> None:
    result = sample.task("patient").apply_async(expires=5)
    error = sample.failure_of(result)
    assert isinstance(error, ConnectionError)
    assert sample.audited(result.id) == [(0, "failed", "CONNECTION_ERROR")]
    assert sample.hooks(result.id)[-1].startswith("given up")


def test_ignore_and_reject_pass_untouched(sample: Sample) -> None:
    ignored = sample.task("ignored").delay()
    rejected = sample.task("rejected").delay()
    wait_until(
        lambda: rejected.state == "FAILURE", "rejected without requeueing: FAILURE, as with celery.Task"
    )
    sample.run("ok")
    assert ignored.state in {"PENDING", "STARTED"}
    assert sample.audited(ignored.id) == sample.audited(rejected.id) == []


def test_custom_headers_survive_a_retry(sample: Sample) -> None:
    result = sample.task("headers_after_retry").apply_async(headers={"site": "north"})
    headers: Any = result.get(timeout=30)
    assert headers["site"] == "north"
    assert headers["td_started_at"] > 0


def test_errbacks_of_both_kinds_run_without_the_policy(sample: Sample, worker: WorkerProcess) -> None:
    old_style = sample.task("old_errback").s()
    old_style.options["task_id"] = "old-errback"
    result = sample.task("own_error").apply_async(
        ("no",), link_error=[sample.task("note_error").s(), old_style]
    )
    sample.failure_of(result)
    wait_until(lambda: f"errback of {result.id} saw PatientError" in worker.output(), "errback")
    assert sample.app.AsyncResult(old_style.options["task_id"]).get(timeout=30) == result.id


def test_an_error_of_on_success_is_logged_and_the_task_has_succeeded(
    sample: Sample, worker: WorkerProcess
) -> None:
    result = sample.task("celebrates").delay()
    assert result.get(timeout=30) == "done"
    wait_until(lambda: "nobody came" in worker.output(), "logged")
    assert sample.audited(result.id) == []
    # What this package does about a success was done before.
    assert [kind for kind, _ in sample.events("celebrates")] == ["ExecutionSucceeded"]


def test_a_serializer_that_no_worker_accepts_is_refused_before_anything_is_sent(sample: Sample) -> None:
    plain = sample.task("ok").s("in the clear").set(serializer="json")
    with pytest.raises(ValidationError, match="asks for the serializer 'json'"):
        plain.delay()
    assert sample.task("ok").apply_async(("sealed",), serializer="techdeck").get(timeout=30) == "sealed"


def test_a_direct_call_is_the_plain_function(sample: Sample) -> None:
    with pytest.raises(ServiceUnavailableError, match="the lab is away"):
        sample.task("flaky")(1)
    assert sample.task("ok")(5) == 5


def test_a_failed_link_of_a_chain_stops_it(sample: Sample) -> None:
    flow = chain(sample.task("ok").si(1), sample.task("own_error").si("broken"), sample.task("ok").si(3))()
    error = flow.parent.get(timeout=30, propagate=False)
    assert isinstance(error, PatientError)
    wait_until(lambda: flow.state == "FAILURE", "the rest of the chain failed with it, as with celery.Task")
    assert sample.audited(flow.id) == []


def _strings(sample: Sample, key: str) -> list[str]:
    raw: Any = sample.redis.lrange(key, 0, -1)
    return [item.decode() for item in raw]
