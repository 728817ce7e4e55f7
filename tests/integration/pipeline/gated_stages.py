"""Stages that wait for a word of the test; workers and tests import it."""

from __future__ import annotations

import os
import time

import polars as pl
import redis

from techdeck_tasks import StageContext, StageResult, stage
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline import StageParams
from techdeck_tasks.pipeline.registry import Partitioning, concatenated

STARTS = "test:starts"
GO = "test:go:"
PIDS = "test:pids"
WAITING = "test:waiting"


class GateParams(StageParams):
    rows: int = 3
    gate: str | None = None
    heed_cancel: bool = True


def _client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["TECHDECK_REDIS_URL"])


@stage(
    "test_gate", params=GateParams, summary="tells of its start, waits at its gate, counts up from its input"
)
def gate(context: StageContext, params: GateParams) -> StageResult:
    with _client() as client:
        client.rpush(STARTS, f"{context.run_id} {context.stage} {context.attempt}")
        while params.gate is not None and not client.exists(GO + params.gate):
            if params.heed_cancel:
                context.check_cancelled()
            time.sleep(0.02)
    start = context.input() if context.inputs else pl.LazyFrame({"n": [0] * params.rows})
    return StageResult(start.with_columns(pl.col("n") + 1), {"rows": params.rows})


class GateRowsParams(StageParams):
    closed_at: int | None = None
    fails_at: int | None = None


def gate_rows(context: StageContext, params: GateRowsParams) -> StageResult:
    """Pass rows on; the part that has the number `closed_at` waits, and that with `fails_at` fails."""
    rows = context.input().collect()
    with _client() as client:
        client.rpush(STARTS, f"{context.run_id} {context.stage} {context.attempt}")
        client.rpush(PIDS, os.getpid())
        if params.closed_at in rows["n"]:
            client.set(WAITING, os.getpid())
            while not client.exists(GO + "rows"):
                context.check_cancelled()
                time.sleep(0.02)
        if params.fails_at in rows["n"] and not client.exists(GO + "mended"):
            raise ValidationError("a row is not as it should be")
    return StageResult(rows, {"rows": rows.height})


stage(
    "test_gate_rows",
    params=GateRowsParams,
    summary="passes rows on, part by part, and waits or fails where it is told",
    partitioning=Partitioning(join=concatenated),
)(gate_rows)


class CountParams(StageParams):
    pass


@stage("test_count", params=CountParams, summary="counts up from its input, and tells the sum")
def count(context: StageContext, params: CountParams) -> StageResult:
    frame = context.input() if context.inputs else pl.LazyFrame({"n": [0] * 100})
    counted = frame.with_columns(pl.col("n") + 1).collect()
    return StageResult(counted, {"sum": int(counted["n"].sum())})
