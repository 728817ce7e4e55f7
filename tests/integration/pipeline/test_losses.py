"""Messages that vanish and workers that are killed: each run ends as it should, each loss is told of once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from run_site import Place

pytestmark = pytest.mark.timeout(180)


def gated(name: str, gate: str | None = None, *needs: str, **options: object) -> dict[str, object]:
    return {"name": name, "stage": "test_gate", "needs": list(needs), "params": {"gate": gate}, **options}


def test_a_message_that_vanishes_with_its_worker_is_sent_again(place: Place) -> None:
    run_id = place.start_run(gated("load"), gated("after", None, "load"))
    message = place.redis.lpop("pipeline")
    first = place.ready_worker()

    def handed_to_a_stopped_worker() -> bool:
        first.signal(signal.SIGSTOP)
        place.redis.lpush("pipeline", message)
        if not place.redis.llen("pipeline"):
            return True
        # It was not waiting for messages when it was stopped.
        place.redis.lpop("pipeline")
        first.signal(signal.SIGCONT)
        return False

    place.until(handed_to_a_stopped_worker, "Redis hands the message to the stopped worker")
    first.kill()
    assert (place.redis.llen("pipeline"), place.redis.hlen("unacked")) == (0, 0)
    place.ready_worker()
    run = place.reconcile_until_ended(run_id)
    assert run.state == "succeeded"
    assert place.starts(run_id) == ["load 0", "after 0"]
    assert place.losses(run_id) == []


@pytest.mark.parametrize("only_main", [True, False], ids=["its main process", "with all its children"])
def test_a_stage_whose_worker_was_killed_is_tried_again_and_the_loss_told_once(
    place: Place, only_main: bool
) -> None:
    first = place.ready_worker()
    run_id = place.start_run(gated("load", "a"), gated("after", None, "load"))
    place.until(lambda: place.starts(run_id), "started")
    if only_main:
        os.kill(first.process.pid, signal.SIGKILL)
    else:
        first.kill()
    # Not before: a child that outlived its main process would deliver, and rightly so.
    place.ready_worker()
    place.until(lambda: place.runtime.runs.reconcile().lost, "the loss was found")
    place.open_gate("a")
    run = place.reconcile_until_ended(run_id)
    assert (run.state, run.stage("load").attempt, run.stage("load").error_code) == (
        "succeeded",
        1,
        "WORKER_LOST",
    )
    assert place.starts(run_id) == ["load 0", "load 1", "after 0"]
    assert place.losses(run_id) == [(0, "retry")]


def test_a_stage_that_takes_longer_than_its_lease_is_not_taken_for_dead(place: Place) -> None:
    place.ready_worker()
    run_id = place.start_run(gated("load", "a"))
    first = place.until(lambda: place.run(run_id).stage("load").started_at, "started")
    lease = place.runtime.pipeline_store.lease

    def two_leases_later() -> bool:
        assert place.runtime.runs.reconcile().lost == 0
        return bool(place.runtime.clock.now() - first > 2 * lease)

    place.until(two_leases_later, "the lease was renewed")
    place.open_gate("a")
    assert place.reconcile_until_ended(run_id).state == "succeeded"
    assert (place.starts(run_id), place.losses(run_id)) == (["load 0"], [])


def test_a_stage_that_always_loses_its_worker_fails_and_each_loss_is_told_once(place: Place) -> None:
    run_id = place.start_run(gated("load", "never"), gated("after", None, "load"))
    for attempt in range(2):
        worker = place.ready_worker()

        def begun(count: int = attempt + 1) -> bool:
            place.runtime.runs.reconcile()
            return bool(len(place.starts(run_id)) == count)

        place.until(begun, f"attempt {attempt} started")
        worker.kill()
    run = place.reconcile_until_ended(run_id)
    assert [run.state, *(stage.state for stage in run.stages)] == ["failed", "failed", "skipped"]
    assert run.error_code == "WORKER_LOST"
    assert place.losses(run_id) == [(0, "retry"), (1, "failed")]


def test_a_worker_that_hangs_loses_its_stage_and_what_it_delivers_later_is_refused(place: Place) -> None:
    first = place.ready_worker()
    run_id = place.start_run(gated("load", "a"))
    place.until(lambda: place.starts(run_id), "started")
    first.signal(signal.SIGSTOP)
    second = place.ready_worker()

    def taken_over() -> bool:
        place.runtime.runs.reconcile()
        return bool(place.starts(run_id) == ["load 0", "load 1"])

    place.until(taken_over, "the second worker has it")
    holder = place.run(run_id).stage("load").task_id
    first.signal(signal.SIGCONT)
    place.open_gate("a")
    run = place.reconcile_until_ended(run_id)
    assert (run.state, run.stage("load").attempt, run.stage("load").task_id) == ("succeeded", 1, holder)
    place.until(lambda: "'claimed': False" in first.output() or "succeeded in" in first.output(), "refused")
    assert place.run(run_id) == run
    assert second.process.poll() is None
    assert place.losses(run_id) == [(0, "retry")]


def test_a_running_stage_stops_at_its_next_checkpoint_when_its_run_is_cancelled(place: Place) -> None:
    place.ready_worker()
    run_id = place.start_run(gated("load", "never"), gated("after", None, "load"))
    place.until(lambda: place.starts(run_id), "started")
    assert place.runtime.runs.cancel(run_id, owner="ada", reason="wrong file") == "cancelling"
    run = place.until(lambda: place.run(run_id).finished and place.run(run_id), "cancelled", 10)
    assert {run.state, *(stage.state for stage in run.stages)} == {"cancelled"}
    assert place.losses(run_id) == []
    place.open_gate("never")
    place.runtime.runs.resume(run_id, owner="ada", reason="it was the right one")
    assert place.reconcile_until_ended(run_id).state == "succeeded"


def test_an_attempt_that_takes_longer_than_its_stage_may_is_ended_and_retried(place: Place) -> None:
    place.ready_worker()
    run_id = place.start_run(gated("load", "never", timeout_seconds=1))
    run = place.until(lambda: place.run(run_id).finished and place.run(run_id), "ended")
    assert run.state == "failed"
    assert run.stage("load").attempt == 1
    assert place.starts(run_id) == ["load 0", "load 1"]
