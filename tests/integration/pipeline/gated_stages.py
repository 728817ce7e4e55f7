"""Stages that wait for a word of the test; workers and tests import it."""

from __future__ import annotations

import os
import time

import polars as pl
import redis

from techdeck_tasks import StageContext, StageResult, stage
from techdeck_tasks.pipeline import StageParams

STARTS = "test:starts"
GO = "test:go:"


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


class CountParams(StageParams):
    pass


@stage("test_count", params=CountParams, summary="counts up from its input, and tells the sum")
def count(context: StageContext, params: CountParams) -> StageResult:
    frame = context.input() if context.inputs else pl.LazyFrame({"n": [0] * 100})
    counted = frame.with_columns(pl.col("n") + 1).collect()
    return StageResult(counted, {"sum": int(counted["n"].sum())})
