"""Large files in parts on real worker processes: killed, failing, cancelled, and within bounded memory."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gated_stages
import polars as pl
import pytest

from techdeck_tasks.pipeline import parse_definition
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef

if TYPE_CHECKING:
    from run_site import Place, Worker

pytestmark = pytest.mark.timeout(180)

ROWS = 20_000
PARTS = 6


def write_rows(path: Path, rows: int) -> None:
    numbers = pl.int_range(rows, eager=True).alias("n").to_frame()
    texts = [(pl.col("n") * factor).hash(factor).cast(pl.String).alias(f"t{factor}") for factor in (3, 5, 7)]
    numbers.with_columns(texts).write_csv(path)


def start(place: Place, rows: int = ROWS, parts: int = PARTS, **gate: Any) -> str:
    source = place.folder / f"{rows}.csv"
    write_rows(source, rows)
    definition = {
        "name": "large",
        "source": {"url": str(source)},
        "stages": [
            {
                "name": "load",
                "stage": "dataset_load",
                "params": {"part_bytes": source.stat().st_size // parts + 1},
            },
            {"name": "gate", "stage": "test_gate_rows", "needs": ["load"], "params": gate},
            {
                "name": "export",
                "needs": ["gate"],
                "params": {"destination": str(place.folder / f"{rows}.parquet")},
            },
        ],
    }
    return str(place.runtime.pipeline.start(str(uuid.uuid4()), parse_definition(definition))["run_id"])


def exported(place: Place, rows: int = ROWS) -> list[int]:
    return pl.read_parquet(place.folder / f"{rows}.parquet")["n"].to_list()


def waiting_child(place: Place) -> int:
    return int(place.until(lambda: place.redis.get(gated_stages.WAITING), "a part waits"))


def test_parts_run_on_both_processes_and_a_killed_child_costs_its_part_alone(place: Place) -> None:
    place.ready_worker()
    run_id = start(place, closed_at=ROWS // 2)
    child = waiting_child(place)
    done = place.until(
        lambda: (counts := place.run(run_id).stage("load").parts).get("succeeded") == PARTS - 1 and counts,
        "the other process has done the other parts",
    )
    assert done == {"succeeded": PARTS - 1, "running": 1}
    assert place.run(run_id).stage("load").rows_done
    os.kill(child, signal.SIGKILL)
    place.open_gate("rows")
    run = place.reconcile_until_ended(run_id)
    assert run.state == "succeeded"
    assert exported(place) == list(range(ROWS))
    starts = place.starts(run_id)
    repeated = {
        start.split()[0] for start in starts if starts.count(start.split()[0] + " 0") and " 1" in start
    }
    assert len(repeated) == 1
    assert len(starts) == PARTS + 1
    assert place.losses(run_id) == [(0, "retry")]
    pids: Any = place.redis.lrange(gated_stages.PIDS, 0, -1)
    assert len(set(pids)) >= 2


def test_a_part_that_fails_for_good_fails_the_run_and_resume_repeats_it_alone(place: Place) -> None:
    place.ready_worker()
    run_id = start(place, fails_at=ROWS - 1)
    run = place.reconcile_until_ended(run_id)
    assert [stage.state for stage in run.stages] == ["succeeded", "failed", "skipped"]
    assert (run.error_code, run.stage("gate").error_code) == ("VALIDATION_ERROR", "VALIDATION_ERROR")
    before = place.starts(run_id)
    place.open_gate("mended")
    place.runtime.runs.resume(run_id, owner="ada", reason="mended")
    assert place.reconcile_until_ended(run_id).state == "succeeded"
    assert place.starts(run_id)[len(before) :] == [f"gate~{PARTS - 1:04} 0"]
    assert exported(place) == list(range(ROWS))


def test_a_cancelled_run_stops_within_its_parts_and_resume_goes_on_with_the_rest(place: Place) -> None:
    place.ready_worker()
    run_id = start(place, closed_at=ROWS // 2)
    waiting_child(place)
    place.until(lambda: place.run(run_id).stage("load").parts.get("succeeded"), "a part is done")
    place.runtime.runs.cancel(run_id, owner="ada", reason="wrong file")
    run = place.until(lambda: place.run(run_id).finished and place.run(run_id), "cancelled", 10)
    assert run.state == "cancelled"
    kept = run.stage("load").parts.get("succeeded", 0)
    before = len(place.starts(run_id))
    place.open_gate("rows")
    place.runtime.runs.resume(run_id, owner="ada", reason="it was the right one")
    assert place.reconcile_until_ended(run_id).state == "succeeded"
    assert len(place.starts(run_id)) - before == PARTS - kept
    assert exported(place) == list(range(ROWS))


def peak_mb(worker: Worker) -> float:
    """Return the highest peak of the resident set that any child of the worker has had."""
    main = worker.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii").split()
    status = [Path(f"/proc/{child}/status").read_text(encoding="ascii") for child in children]
    lines = [line for text in status for line in text.splitlines() if line.startswith("VmHWM")]
    return max(int(line.split()[1]) for line in lines) / 1000


def test_memory_does_not_grow_with_the_file(place: Place) -> None:
    worker = place.ready_worker()
    peaks = []
    for parts in (4, 40):
        rows = parts * 50_000
        run_id = start(place, rows=rows, parts=parts)
        run = place.until(lambda run_id=run_id: place.run(run_id).finished and place.run(run_id), "ended", 90)
        assert run.state == "succeeded"
        assert run.stage("load").parts == {"succeeded": parts}
        peaks.append(peak_mb(worker))
    small, large = peaks
    assert large < 1.3 * small, peaks
    size_mb = (place.folder / "2000000.csv").stat().st_size / 1e6
    assert large - small < size_mb / 2, "the larger file would not have fitted into what was taken for it"


def test_the_artifact_of_parts_is_sealed_and_whole(place: Place) -> None:
    place.ready_worker()
    run = place.reconcile_until_ended(start(place))
    ref = ArtifactRef.from_dict(run.stage("gate").output or {})
    assert (len(ref.parts), ref.rows) == (PARTS, ROWS)
    for part in ref.parts:
        assert b"PAR1" not in Path(part.url).read_bytes()
