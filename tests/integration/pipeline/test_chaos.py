"""Many small pipelines while workers, Redis and PostgreSQL are killed at random."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from run_site import Place, Worker, open_place
from sqlalchemy import text

from techdeck_tasks.audit.writing.stream import STREAM
from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.pipeline.runs.view import RunView

SHORT = (8, 4)
LONG = (40, 8)
"""Pipelines and kills of one round: 25 rounds of the long form are 1,000 pipelines and 200 kills."""

ROWS = 100


def patient(call: Callable[[], Any]) -> Any:
    """Call until the servers are back."""
    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except (TechDeckError, OSError, EOFError):
            if time.monotonic() > end:
                raise
        except Exception as error:
            # redis-py and kombu have trees of their own.
            if type(error).__module__.split(".")[0] not in ("redis", "kombu") or time.monotonic() > end:
                raise
        time.sleep(0.1)


class Chaos:
    """Kills one thing after the other, and brings it back."""

    def __init__(self, place: Place, rng: random.Random) -> None:
        self._place = place
        self._rng = rng

    def strike(self, victim: str) -> None:
        if victim in ("redis", "postgres"):
            self._server(victim).kill()
            self._place.services.start()
            return
        worker = self._rng.choice(self._workers())
        if victim == "worker":
            worker.kill()
            self._place.start_worker()
        elif children := psutil.Process(worker.process.pid).children():
            self._rng.choice(children).kill()

    def _workers(self) -> list[Worker]:
        mine = [one for one in self._place.workers if one.log.name.startswith("gated_worker")]
        return [one for one in mine if one.process.poll() is None]

    def _server(self, name: str) -> psutil.Process:
        """Return the server's main process; its append-only file or WAL brings its data back."""
        (found,) = self._place.folder.rglob("redis*.pid" if name == "redis" else "postmaster.pid")
        return psutil.Process(int(found.read_text().split()[0]))


def upkeep(place: Place) -> None:
    """Do what beat has the workers do."""
    patient(place.runtime.runs.reconcile)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_every_run_ends_right_while_everything_is_killed(
    tmp_path: Path, chaos_round: int, request: pytest.FixtureRequest
) -> None:
    pipelines, kills = SHORT if request.config.getoption("--chaos-rounds") == 1 else LONG
    rng = random.Random(chaos_round)
    with open_place(tmp_path, default_max_retries="8", default_retry_cap_seconds="2") as place:
        place.start_worker("gated_audit", "-Q", "audit", "-P", "threads", "-c", "1")
        for _ in range(2):
            place.ready_worker()
        chaos = Chaos(place, rng)
        run_ids = []
        # Each kind of thing is killed at least once.
        victims = ["worker", "child", "redis", "postgres"] * (kills // 4)
        rng.shuffle(victims)
        struck_after = sorted(rng.sample(range(pipelines), kills))
        for number in range(pipelines):
            run_ids.append(patient(lambda: started(place)))
            while struck_after and struck_after[0] == number:
                struck_after.pop(0)
                chaos.strike(victims.pop())
            upkeep(place)
        runs = [ended(place, run_id) for run_id in run_ids]
        for run in runs:
            assert run.state == "succeeded", run.to_dict()
            assert [stage.report for stage in run.stages] == [
                {"rows": ROWS},
                {"rows": ROWS},
                {"rows": ROWS},
                {"sum": 4 * ROWS},
            ]
            begun = Counter(place.starts(run.run_id))
            # Redis may forget the last second of what it was told: a start can be missing, never be double.
            assert max(begun.values(), default=0) <= 1, begun
        check_audit(place, run_ids)


def started(place: Place) -> str:
    stages = [
        {
            "name": f"s{place_in_line}",
            "stage": "test_gate",
            "needs": [f"s{place_in_line - 1}"] if place_in_line else [],
            "params": {"rows": ROWS},
        }
        for place_in_line in range(3)
    ]
    return str(place.start_run(*stages, {"name": "sum", "stage": "test_count", "needs": ["s2"]}))


def ended(place: Place, run_id: str) -> RunView:
    def look() -> RunView | None:
        upkeep(place)
        view: RunView = patient(lambda: place.run(run_id))
        return view if view.finished else None

    found: RunView = place.until(look, f"run {run_id} has ended", 120)
    return found


def check_audit(place: Place, run_ids: list[str]) -> None:
    """Each handled error has one row, no attempt was lost twice, and nothing in the log was changed."""

    def drained() -> bool:
        place.runtime.audit.replay()
        groups: Any = place.redis.xinfo_groups(STREAM)
        newest: Any = place.redis.xinfo_stream(STREAM)
        return all(
            group["pending"] == 0 and group["last-delivered-id"] == newest["last-generated-id"]
            for group in groups
        )

    patient(lambda: place.until(drained, "the audit worker has written all", 60))
    statement = text(
        "SELECT error_id, task_id, attempt, error_code FROM audit_event "
        "WHERE event_type = 'error_handling' AND pipeline_id = ANY(:runs)"
    )
    with place.runtime.engine.connect() as connection:
        rows = connection.execute(statement, {"runs": run_ids}).all()
    assert [error for error, count in Counter(row.error_id for row in rows).items() if count > 1] == []
    losses = Counter((row.task_id, row.attempt) for row in rows if row.error_code == "WORKER_LOST")
    assert [loss for loss, count in losses.items() if count > 1] == []
    assert place.runtime.verify_audit().findings == ()
