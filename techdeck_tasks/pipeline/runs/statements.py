"""The statements the store is made of. Each runs on the caller's connection, inside its transaction."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Update, and_, func, select, true, update

from techdeck_tasks.errors import PipelineExecutionError, TechDeckError, ValidationError
from techdeck_tasks.pipeline.models import PipelineRun, StageRun
from techdeck_tasks.pipeline.runs.state import (
    FINAL_STAGE_STATES,
    Plan,
    RunState,
    StageState,
    blocked,
    broken,
    concluded,
    ready,
    run_sources,
    stage_sources,
)
from techdeck_tasks.pipeline.runs.view import RunView, StageView

RUNS = select(
    PipelineRun.run_id,
    PipelineRun.name,
    PipelineRun.state,
    PipelineRun.priority,
    PipelineRun.idempotency_key,
    PipelineRun.created_at,
    PipelineRun.started_at,
    PipelineRun.finished_at,
    PipelineRun.artifacts_removed_at,
    PipelineRun.error_id,
    PipelineRun.error_code,
    PipelineRun.error_message,
)
"""Runs without their sealed definition; read a row with `run_view`."""

STAGES = select(*StageRun.__table__.columns).order_by(StageRun.position, StageRun.name)
"""Stages and parts in the order of the definition; read a row with `stage_view`."""

PARTS = (
    select(
        StageRun.part_of,
        StageRun.state,
        func.count().label("count"),
        func.sum(StageRun.rows_done).label("rows_done"),
    )
    .where(StageRun.part_of.is_not(None))
    .group_by(StageRun.part_of, StageRun.state)
)
"""How many parts of each stage are in each state, and how many rows they have done."""


PARTS_AT_ONCE = 16
"""So many parts of one run may wait for or occupy workers, unless the settings say otherwise."""

READY = (
    select(
        StageRun.name,
        StageRun.kind,
        StageRun.generation,
        StageRun.attempt,
        StageRun.timeout_seconds,
        PipelineRun.priority,
    )
    .join(PipelineRun, PipelineRun.run_id == StageRun.run_id)
    .order_by(StageRun.position, StageRun.name)
)
"""Stages as they are sent to a worker; the columns of `ReadyStage`."""


@dataclass(frozen=True, slots=True)
class ReadyStage:
    """A stage that may be sent to a worker: what its message says.

    Attributes:
        generation: how often the stage was resumed.
        attempt: the attempt to be made, from 0.
        timeout_seconds: the definition's limit for the attempt; None: the worker's.
        priority: the run's, see `definition.Priority`.
    """

    name: str
    kind: str
    generation: int = 0
    attempt: int = 0
    timeout_seconds: int | None = None
    priority: str = "normal"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a change.

    Attributes:
        now: its moment.
        lease_until: until when what it queues must be heard of.
        parts_at_once: how many parts of a run may be under way.
    """

    now: datetime
    lease_until: datetime
    parts_at_once: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What followed from a stage's end; `accepted` is False where the caller no longer held the claim."""

    accepted: bool
    ready: tuple[ReadyStage, ...] = ()
    run_state: RunState | None = None


def lock_run(connection: Connection, key: uuid.UUID) -> RunState:
    """Lock the run's row until the transaction ends and return its state.

    Raises:
        PipelineExecutionError: there is no such run.
    """
    found = connection.scalar(select(PipelineRun.state).where(PipelineRun.run_id == key).with_for_update())
    if found is None:
        raise no_run(key)
    return RunState(found)


def move_stage(
    connection: Connection,
    key: uuid.UUID,
    stage: str,
    target: StageState,
    condition: ColumnElement[bool],
    **values: Any,
) -> bool:
    """Move a stage to `target` if the state machine and `condition` allow it; tell whether it moved."""
    return connection.execute(_moving(key, stage, target, condition, values)).rowcount == 1


def moved_stage(
    connection: Connection,
    key: uuid.UUID,
    stage: str,
    target: StageState,
    condition: ColumnElement[bool],
    **values: Any,
) -> RowMapping | None:
    """Move a stage as `move_stage` does, and return its row; None where it did not move."""
    moving = _moving(key, stage, target, condition, values).returning(*StageRun.__table__.columns)
    return connection.execute(moving).mappings().first()


def _moving(
    key: uuid.UUID,
    stage: str,
    target: StageState,
    condition: ColumnElement[bool],
    values: Mapping[str, Any],
) -> Update:
    return (
        update(StageRun)
        .where(one_stage(key, stage), StageRun.state.in_(stage_sources(target)), condition)
        .values(state=target, **values)
    )


def queue_ready(
    connection: Connection, key: uuid.UUID, terms: Terms, plan: Plan | None = None
) -> list[ReadyStage]:
    """Queue each stage and part that may be sent now. The caller holds the run's lock.

    Args:
        connection: in the transaction that holds the lock.
        key: the run.
        terms: what holds for the change.
        plan: how the run stands, where the caller has looked already.
    """
    names = ready(plan or _standing(connection, key)[1], terms.parts_at_once)
    if not names:
        return []
    connection.execute(
        update(StageRun)
        .where(
            StageRun.run_id == key,
            StageRun.name.in_(names),
            StageRun.state.in_({StageState.PENDING, StageState.SPLIT}),
        )
        .values(state=StageState.QUEUED, lease_until=terms.lease_until, resends=0, task_id=None)
    )
    return ready_stages(connection, and_(StageRun.run_id == key, StageRun.name.in_(names)))


def ready_stages(connection: Connection, condition: ColumnElement[bool]) -> list[ReadyStage]:
    """Return the stages that fulfil `condition`, in the order of the definition, as they are sent."""
    return [ReadyStage(**row) for row in connection.execute(READY.where(condition)).mappings()]


def end_stage(  # noqa: PLR0917 - the database, the row, the change
    connection: Connection,
    key: uuid.UUID,
    stage: str,
    target: StageState,
    condition: ColumnElement[bool],
    terms: Terms,
    **values: Any,
) -> Settled:
    """Move a stage to the final state `target` and settle its run. The caller holds the run's lock."""
    ended = {"finished_at": terms.now, "lease_until": None, "retry_at": None, **values}
    if not move_stage(connection, key, stage, target, condition, **ended):
        return Settled(accepted=False)
    return settle(connection, key, terms)


def fail_stage(  # noqa: PLR0917 - as end_stage
    connection: Connection,
    key: uuid.UUID,
    stage: str,
    error: TechDeckError,
    condition: ColumnElement[bool],
    terms: Terms,
) -> Settled:
    """End a stage with an error, which is the run's if it is the first. The caller holds the run's lock."""
    values = error_values(error)
    settled = end_stage(connection, key, stage, StageState.FAILED, condition, terms, **values)
    if settled.accepted:
        connection.execute(
            update(PipelineRun)
            .where(PipelineRun.run_id == key, PipelineRun.error_code.is_(None))
            .values(values)
        )
    return settled


def settle(connection: Connection, key: uuid.UUID, terms: Terms) -> Settled:
    """After a stage ended: skip what can never run, queue what can run, finish the run if nothing is left.

    The caller holds the run's lock.
    """
    run, plan = _standing(connection, key)
    for stage, part in broken(plan).items():
        _break_off(connection, key, plan, stage, part, terms)
    if lost := blocked(plan):
        connection.execute(
            update(StageRun)
            .where(StageRun.run_id == key, StageRun.name.in_(lost))
            .values(state=StageState.SKIPPED, finished_at=terms.now)
        )
        plan.states.update(dict.fromkeys(lost, StageState.SKIPPED))
    queued = queue_ready(connection, key, terms, plan)
    final = None if queued else concluded(run, plan)
    if final is not None:
        connection.execute(
            update(PipelineRun)
            .where(PipelineRun.run_id == key, PipelineRun.state.in_(run_sources(final)))
            .values(state=final, finished_at=terms.now)
        )
    return Settled(accepted=True, ready=tuple(queued), run_state=final or run)


def _break_off(  # noqa: PLR0917 - as end_stage
    connection: Connection, key: uuid.UUID, plan: Plan, stage: str, part: str, terms: Terms
) -> None:
    """Give up the parts of `stage` that did not begin, and fail it when the last that did has ended.

    Those that run go on: what they deliver need not be done again when the run is resumed.
    """
    ended = {"finished_at": terms.now, "lease_until": None, "retry_at": None}
    given_up = {
        StageState.PENDING: StageState.SKIPPED,
        StageState.QUEUED: StageState.CANCELLED,
        StageState.RETRYING: StageState.CANCELLED,
    }
    for name in plan.parts(stage):
        if (target := given_up.get(plan.states[name])) is not None:
            connection.execute(update(StageRun).where(one_stage(key, name)).values(state=target, **ended))
            plan.states[name] = target
    if all(plan.states[name] in FINAL_STAGE_STATES for name in plan.parts(stage)):
        failed = select(StageRun.error_id, StageRun.error_code, StageRun.error_message)
        values = dict(connection.execute(failed.where(one_stage(key, part))).mappings().one())
        move_stage(connection, key, stage, StageState.FAILED, true(), **ended, **values)
        plan.states[stage] = StageState.FAILED


def one_stage(key: uuid.UUID, stage: str) -> ColumnElement[bool]:
    """Return the condition that names one stage of one run."""
    return and_(StageRun.run_id == key, StageRun.name == stage)


def held_by(attempt: int, task_id: str) -> ColumnElement[bool]:
    """Return the condition that this attempt of this task runs the stage: its fencing token."""
    return and_(
        StageRun.state == StageState.RUNNING, StageRun.attempt == attempt, StageRun.task_id == task_id
    )


def error_values(error: TechDeckError) -> dict[str, str]:
    """Return the columns that both tables keep of an error; its message is redacted already."""
    return {"error_id": error.error_id, "error_code": error.error_code, "error_message": error.message}


def run_view(row: Mapping[Any, Any], stages: tuple[StageView, ...] = ()) -> RunView:
    """Return a row of `RUNS` as what readers see."""
    values = dict(row)
    values["run_id"] = str(values["run_id"])
    values["state"] = RunState(values["state"])
    return RunView(**values, stages=stages)


def stage_view(row: Mapping[Any, Any], parts: Mapping[str, int] | None = None, rows: int = 0) -> StageView:
    """Return a row of `STAGES` as what readers see.

    Args:
        row: the row.
        parts: how many of its parts are in each state.
        rows: how many rows they have done.
    """
    values = {name: row[name] for name in StageView.__slots__ if name != "parts"}
    values["state"] = StageState(values["state"])
    values["needs"] = tuple(values["needs"])
    if parts and values["state"] is not StageState.SUCCEEDED:
        values["rows_done"] = rows
    return StageView(**values, parts=dict(parts or {}))


def part_counts(rows: Iterable[Any]) -> dict[str, tuple[dict[str, int], int]]:
    """Return rows of `PARTS` by stage: the parts in each state, and the rows that all have done."""
    found: dict[str, tuple[dict[str, int], int]] = {}
    for row in rows:
        counts, done = found.get(row.part_of, ({}, 0))
        # A sum of big integers is a decimal in PostgreSQL.
        found[row.part_of] = counts | {row.state: row.count}, done + int(row.rows_done or 0)
    return found


def run_key(run_id: str) -> uuid.UUID:
    """Return a run's id as its key.

    Raises:
        ValidationError: it is no UUID.
    """
    try:
        return uuid.UUID(run_id)
    except (ValueError, AttributeError, TypeError):
        raise ValidationError(
            "a run id is a UUID, and this one is not", field="run_id", value=run_id
        ) from None


def no_run(key: uuid.UUID) -> PipelineExecutionError:
    """Return the error for a run that is not there."""
    return PipelineExecutionError(
        f"there is no run {key} in this database; check the id and TECHDECK_DATABASE_URL",
        pipeline_id=str(key),
    )


def _standing(connection: Connection, key: uuid.UUID) -> tuple[RunState, Plan]:
    """Return how the run stands, and its stages and parts."""
    rows = connection.execute(
        select(
            StageRun.name, StageRun.state, StageRun.needs, StageRun.part_of, PipelineRun.state.label("run")
        )
        .join(PipelineRun, PipelineRun.run_id == StageRun.run_id)
        .where(StageRun.run_id == key)
        .order_by(StageRun.position, StageRun.name)
    ).all()
    plan = Plan(
        states={row.name: StageState(row.state) for row in rows},
        needs={row.name: tuple(row.needs) for row in rows},
        part_of={row.name: row.part_of for row in rows if row.part_of is not None},
    )
    return RunState(rows[0].run), plan
