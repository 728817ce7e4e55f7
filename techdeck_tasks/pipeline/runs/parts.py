"""Parts of a stage: rows of `stage_run` of their own, each claimed, retried and lost by itself.

A part is called as its stage, with ``~`` and its number: no stage's name has a ``~``. Its piece says where
its share of the data lies, and of how many pieces it is one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from techdeck_tasks.pipeline.models import StageRun
from techdeck_tasks.pipeline.registry import Piece
from techdeck_tasks.pipeline.runs.state import StageState
from techdeck_tasks.pipeline.runs.statements import STAGES

MAX_PARTS = 1000
COUNT = "of"
"""The key of a piece that says how many there are."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part as PostgreSQL has it."""

    name: str
    stage: str
    state: StageState
    piece: Piece
    output: dict[str, Any] | None
    report: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AheadResult:
    """What a task did for a later stage as well, since it had the rows at hand: the result of one part."""

    stage: str
    number: int
    piece: Piece
    output: Mapping[str, Any] | None
    report: Mapping[str, Any]
    rows: int | None


def part_name(stage: str, number: int) -> str:
    """Return what part `number` (from 0) of `stage` is called; names sort as numbers do."""
    return f"{stage}~{number:04}"


def part_values(whole: Mapping[Any, Any], number: int, piece: Piece) -> dict[str, Any]:
    """Return the row of a part that waits; `whole` is the row of its stage."""
    return {
        "run_id": whole["run_id"],
        "name": part_name(whole["name"], number),
        "kind": whole["kind"],
        "position": whole["position"],
        "needs": [],
        "part_of": whole["name"],
        "piece": dict(piece),
        "state": StageState.PENDING,
        "generation": whole["generation"],
        "attempt": 0,
        "timeout_seconds": whole["timeout_seconds"],
    }


def add_parts(connection: Connection, parts: Sequence[Mapping[str, Any]]) -> None:
    """Store parts; one that is there stays as it is."""
    if parts:
        connection.execute(insert(StageRun).on_conflict_do_nothing(), [dict(part) for part in parts])


def add_ahead(connection: Connection, key: uuid.UUID, ahead: Sequence[AheadResult], now: datetime) -> None:
    """Store the results of parts that were done ahead of their stages' turn."""
    if not ahead:
        return
    named = STAGES.where(StageRun.run_id == key, StageRun.name.in_([result.stage for result in ahead]))
    wholes = {row["name"]: row for row in connection.execute(named).mappings()}
    parts = [
        part_values(wholes[result.stage], result.number, result.piece)
        | {
            "state": StageState.SUCCEEDED,
            "started_at": now,
            "finished_at": now,
            "output": None if result.output is None else dict(result.output),
            "report": dict(result.report),
            "rows_done": result.rows,
        }
        for result in ahead
    ]
    add_parts(connection, parts)


def part_of_row(row: Mapping[Any, Any]) -> Part:
    """Return a row of a part."""
    return Part(
        name=row["name"],
        stage=row["part_of"],
        state=StageState(row["state"]),
        piece=row["piece"],
        output=row["output"],
        report=row["report"] or {},
    )
