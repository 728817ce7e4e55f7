"""Children that end without a word, seen by a real worker's main process."""

from __future__ import annotations

import time

from sample_app import SECRET
from worker_site import Sample, Site, WorkerProcess, make_sample, wait_until


def test_a_hard_time_limit_is_audited_once_though_celery_tells_it_twice(sample: Sample) -> None:
    task_id, error = sample.failure("hang_once")
    assert "TimeLimitExceeded" in type(error).__name__
    wait_until(lambda: sample.hooks(task_id), "given up")
    sample.run("ok")
    assert sorted(sample.audited(task_id)) == [(0, "failed", "WORKER_LOST")]
    assert len(sample.hooks(task_id)) == 1


def test_a_hard_time_limit_is_retried_by_count_and_given_up_once(sample: Sample) -> None:
    task_id, error = sample.failure("hang")
    assert "TimeLimitExceeded" in type(error).__name__
    wait_until(lambda: len(sample.hooks(task_id)) == 2, "retried and given up")
    assert sorted(sample.audited(task_id)) == [(0, "retry", "WORKER_LOST"), (1, "failed", "WORKER_LOST")]


def test_a_task_over_its_hard_limit_once_ends_well_at_the_second_attempt(sample: Sample) -> None:
    result = sample.task("hang").delay(times=1)
    states: set[str] = set()

    def ended() -> bool:
        states.add(result.state)
        return "SUCCESS" in states

    wait_until(ended, "second attempt")
    assert result.get(timeout=5) == 1
    assert "FAILURE" not in states
    wait_until(lambda: sample.audited(result.id), "audited")
    assert sample.audited(result.id) == [(0, "retry", "WORKER_LOST")]


def test_a_child_is_replaced_as_soon_as_it_has_ended(own_site: Site) -> None:
    own_site.start_worker("short", 1, "--max-tasks-per-child", "3").wait_ready()
    sample = make_sample(own_site)
    began = time.monotonic()
    assert len({sample.run("pid") for _ in range(24)}) == 8
    # Celery's own pool looks for ended children every 5 s: seven times 2.5 s on average.
    assert time.monotonic() - began < 9


def test_a_killed_child_is_retried_by_count_and_given_up_once(sample: Sample, worker: WorkerProcess) -> None:
    task_id, error = sample.failure("killed")
    assert "WorkerLostError" in type(error).__name__
    wait_until(lambda: len(sample.hooks(task_id)) == 2, "retried and given up")
    assert sorted(sample.audited(task_id)) == [(0, "retry", "WORKER_LOST"), (1, "failed", "WORKER_LOST")]
    # In a process of the pool: the main one must go on reading messages.
    assert str(worker.process.pid) not in str(sample.hooks(task_id))


def test_a_killed_child_that_is_to_be_requeued_is_given_up_once_all_the_same(sample: Sample) -> None:
    task_id, error = sample.failure("killed_and_rejected")
    assert "WORKER_LOST" in repr(error)
    wait_until(lambda: sample.audited(task_id)[-1][1] == "failed", "audited")
    assert sample.run("ok", 1) == 1
    assert [outcome for _, outcome, _ in sample.audited(task_id)] == ["retry", "failed"]


def test_a_child_that_was_killed_once_ends_well_at_the_second_attempt(sample: Sample) -> None:
    result = sample.task("killed").delay(times=1)
    assert result.get(timeout=30) == 1
    wait_until(lambda: sample.audited(result.id), "audited")
    assert sample.audited(result.id) == [(0, "retry", "WORKER_LOST")]


def test_sys_exit_in_a_task_is_a_lost_child(sample: Sample, worker: WorkerProcess) -> None:
    task_id, _ = sample.failure("exits")
    wait_until(lambda: len(sample.audited(task_id)) == 2, "audited")
    assert sorted(sample.audited(task_id)) == [(0, "retry", "WORKER_LOST"), (1, "failed", "WORKER_LOST")]
    assert SECRET not in worker.output()


def test_a_slow_hook_after_a_killed_child_does_not_hold_up_other_tasks(sample: Sample) -> None:
    slow = sample.task("killed").delay(slow_hook_s=3)
    wait_until(lambda: len(sample.hooks(slow.id)) == 2, "in the slow hook")
    began = time.monotonic()
    assert sample.run("ok", "meanwhile") == "meanwhile"
    assert time.monotonic() - began < 2


def test_an_errback_of_a_killed_child_runs_in_the_main_process_unless_it_is_a_task_of_its_own(
    sample: Sample, worker: WorkerProcess
) -> None:
    own = sample.task("old_errback").s().set(task_id=f"errback-{time.time_ns()}")
    result = sample.task("killed").apply_async(link_error=[sample.task("note_error").s(), own])
    sample.failure_of(result)
    assert sample.app.AsyncResult(own.options["task_id"]).get(timeout=30) == result.id
    said = f"errback of {result.id} saw WorkerLostError"
    wait_until(lambda: said in worker.output(), "the errback that takes the request")
    (line,) = [line for line in worker.output().splitlines() if said in line]
    assert "MainProcess" in line


def test_a_running_task_that_is_revoked_is_audited_once_and_not_retried(sample: Sample) -> None:
    result = sample.task("nap").delay("revoked")
    wait_until(lambda: sample.redis.exists("test:starts:revoked"), "started")
    sample.app.control.revoke(result.id, terminate=True, signal="SIGKILL")
    wait_until(lambda: sample.hooks(result.id), "given up")
    assert result.state == "REVOKED"
    assert sample.audited(result.id) == [(0, "failed", "WORKER_LOST")]
    assert len(sample.hooks(result.id)) == 1
