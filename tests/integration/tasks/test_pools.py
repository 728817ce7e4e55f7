"""Workers whose pool has no processes: what ends a child elsewhere must not end the worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sample_app import SECRET
from worker_site import Sample, Site, WorkerProcess, make_sample, wait_until

from techdeck_tasks.errors import TechDeckError


@pytest.fixture(params=["threads", "solo"])
def pooled(request: pytest.FixtureRequest, own_site: Site) -> Iterator[tuple[Sample, WorkerProcess]]:
    worker = own_site.start_worker(request.param, 2, "--pool", request.param)
    worker.wait_ready()
    yield make_sample(own_site), worker
    assert worker.alive, worker.output()[-3000:]


def test_the_base_class_does_its_work_in_every_pool(pooled: tuple[Sample, WorkerProcess]) -> None:
    sample, worker = pooled
    assert sample.run("ok", 1) == 1
    flaky = sample.task("flaky").delay(2)
    assert flaky.get(timeout=30) == 2
    assert [outcome for _, outcome, _ in sample.audited(flaky.id)] == ["retry", "retry"]
    task_id, error = sample.failure("leaky", "x")
    assert type(error) is ValueError
    assert [outcome for _, outcome, _ in sample.audited(task_id)] == ["failed"]
    task_id, error = sample.failure("out_of_memory")
    assert isinstance(error, TechDeckError)
    assert sample.audited(task_id) == [(0, "failed", "WORKER_LOST")]
    assert SECRET not in worker.output()


@pytest.mark.parametrize("name", ["generator_exit", "exits", "cancelled", "exits_among_others"])
def test_an_exit_out_of_the_body_fails_the_task_and_is_audited(
    pooled: tuple[Sample, WorkerProcess], name: str
) -> None:
    sample, worker = pooled
    result = sample.task(name).delay()
    wait_until(lambda: result.state == "FAILURE", "failed")
    wait_until(lambda: [o for _, o, _ in sample.audited(result.id)][-1:] == ["failed"], "audited")
    assert sample.run("ok", 2) == 2
    assert SECRET not in worker.output()
