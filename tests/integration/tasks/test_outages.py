"""Redis away, and workers that are stopped: nothing is lost and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery.states import READY_STATES
from kombu.exceptions import OperationalError
from worker_site import Sample, Site, make_sample, wait_until

from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.errors import ServiceUnavailableError

LIMITS = {
    "TECHDECK_TASK_TIME_LIMIT_SECONDS": "20",
    "TECHDECK_TASK_SOFT_TIME_LIMIT_SECONDS": "19",
    "TECHDECK_VISIBILITY_TIMEOUT_SECONDS": "31",
}


@pytest.fixture
def lone(own_site: Site) -> Sample:
    """A client of a Redis of the test's own."""
    own_site.extra |= LIMITS
    return make_sample(own_site)


@contextmanager
def redis_hanging(site: Site) -> Iterator[None]:
    """Redis keeps its connections and answers nothing."""
    process = _redis_process(site)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _redis_process(site: Site) -> psutil.Process:
    with redis.Redis.from_url(site.url) as client:
        info: Any = client.info("server")
    return psutil.Process(info["process_id"])


@pytest.mark.parametrize("warm", [False, True], ids=["first message", "open connection"])
def test_sending_to_a_redis_that_hangs_fails_within_ten_seconds(lone: Sample, warm: bool) -> None:
    if warm:
        lone.task("ok").delay()
    with redis_hanging(lone.site):
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match=r"sample\.ok not sent") as told:
            lone.task("ok").delay()
        assert time.monotonic() - began < 10
    assert isinstance(told.value, OperationalError)
    assert "redis://" not in str(told.value.to_dict())
    lone.task("ok").delay()


def test_sending_to_a_redis_that_is_gone_fails_at_once(lone: Sample) -> None:
    lone.site.server.stop()
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        lone.task("ok").delay()
    assert time.monotonic() - began < 5


def test_a_group_and_a_chain_fail_as_clearly_as_a_task(lone: Sample) -> None:
    lone.site.server.stop()
    ok = lone.task("ok")
    with pytest.raises(ServiceUnavailableError):
        (ok.si(1) | ok.si(2)).apply_async()


def test_tasks_that_end_or_retry_during_an_outage_finally_succeed(lone: Sample, tmp_path: Path) -> None:
    worker = lone.site.start_worker()
    worker.wait_ready()
    ending, retrying = str(tmp_path / "ending"), str(tmp_path / "retrying")
    succeeding = lone.task("nap_then_succeed").delay(ending, 15)
    failing = lone.task("nap_then_fail_once").delay(retrying, 15)
    wait_until(lambda: Path(ending + ".started").exists(), "first task started")
    wait_until(lambda: Path(retrying + ".started").exists(), "second task started")
    with redis_stopped(lone.site):
        Path(ending).touch()
        Path(retrying).touch()
        wait_until(lambda: "rejected" in worker.output(), "the retry that could not be sent")
        wait_until(lambda: "Connection to broker lost" in worker.output(), "the outage noticed")
    assert _result(lone, succeeding.id) == "done"
    assert _result(lone, failing.id) == 1
    assert worker.alive
    wait_until(lambda: lone.run("ok", 5) == 5, "the worker hears again")


def test_a_worker_that_is_told_to_stop_gives_unfinished_work_back(lone: Sample) -> None:
    first = lone.site.start_worker("first", concurrency=1)
    first.wait_ready()
    result = lone.task("nap").delay("handover")
    wait_until(lambda: lone.redis.llen("test:starts:handover") == 1, "started")
    os.kill(first.process.pid, signal.SIGTERM)
    first.process.wait(20)
    second = lone.site.start_worker("second", concurrency=1)
    wait_until(lambda: lone.redis.llen("test:starts:handover") == 2, "started again")
    lone.redis.set("test:go:handover", 1)
    assert result.get(timeout=20) == "rested"
    starts: Any = lone.redis.lrange("test:starts:handover", 0, -1)
    assert [start.split()[0] for start in starts] == [b"first@test", b"second@test"]
    assert second.alive
    assert lone.audited(result.id) == []


def test_an_idle_worker_stops_at_once_and_gives_back_what_waits_for_its_time(lone: Sample) -> None:
    lone.site.extra["TECHDECK_SOFT_SHUTDOWN_TIMEOUT_SECONDS"] = "15"
    first = lone.site.start_worker("first", concurrency=1)
    first.wait_ready()
    result = lone.task("ok").apply_async(("later",), countdown=4)
    wait_until(lambda: result.id in first.output(), "received")
    began = time.monotonic()
    os.kill(first.process.pid, signal.SIGTERM)
    first.process.wait(20)
    assert time.monotonic() - began < 5
    lone.site.start_worker("second", concurrency=1)
    assert result.get(timeout=15) == "later"


@contextmanager
def redis_stopped(site: Site) -> Iterator[None]:
    """Redis ends in order, and comes back on the same port with its data."""
    port = int(site.url.rsplit(":", 1)[1].split("/")[0])
    site.server.stop()
    try:
        yield
    finally:
        site.server = EmbeddedRedis(site.folder / "data", port=port).start()


def _result(sample: Sample, task_id: str) -> Any:
    result = sample.app.AsyncResult(task_id)
    [ended] = wait_until(lambda: _polled(result), f"result of {task_id}", deadline_s=40)
    return ended


def _polled(result: Any) -> Any:
    try:
        meta = result.backend.get_task_meta(result.id, cache=False)
    except redis.RedisError:
        return []
    return [meta["result"]] if meta["status"] in READY_STATES else []


def test_work_that_ends_within_the_soft_shutdown_is_not_done_again(lone: Sample) -> None:
    lone.site.extra["TECHDECK_SOFT_SHUTDOWN_TIMEOUT_SECONDS"] = "2"
    first = lone.site.start_worker("first", concurrency=1)
    first.wait_ready()
    result = lone.task("nap").delay("in-time")
    wait_until(lambda: lone.redis.llen("test:starts:in-time") == 1, "started")
    os.kill(first.process.pid, signal.SIGTERM)
    wait_until(lambda: "Initiating Soft Shutdown" in first.output(), "told")
    lone.redis.set("test:go:in-time", 1)
    assert result.get(timeout=15) == "rested"
    first.process.wait(20)
    assert lone.redis.llen("sample") == lone.redis.hlen("unacked") == 0


def test_a_worker_outlives_a_redis_out_of_memory(lone: Sample, tmp_path: Path) -> None:
    worker = lone.site.start_worker()
    worker.wait_ready()
    flag = tmp_path / "go"
    lone.task("nap_then_fail_once").delay(str(flag), 15)
    wait_until((tmp_path / "go.started").exists, "started")
    lone.redis.config_set("maxmemory", 1)
    flag.touch()
    wait_until(lambda: "Couldn't reject" in worker.output(), "a write was refused")
    lone.redis.config_set("maxmemory", 0)
    wait_until(lambda: lone.run("ok", 5) == 5, "the worker hears again")
    assert worker.alive
