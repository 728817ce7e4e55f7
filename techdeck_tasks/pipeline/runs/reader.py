"""What PostgreSQL knows of runs, for those who look: nothing here changes anything."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, select, tuple_

from techdeck_tasks.pipeline.data.sealed_file import Cipher
from techdeck_tasks.pipeline.definition import PipelineDefinition
from techdeck_tasks.pipeline.models import PipelineRun, StageRun
from techdeck_tasks.pipeline.runs.parts import Part, part_of_row
from techdeck_tasks.pipeline.runs.state import RunState, StageState
from techdeck_tasks.pipeline.runs.statements import (
    PARTS,
    RUNS,
    STAGES,
    ReadyStage,
    no_run,
    one_stage,
    part_counts,
    ready_stages,
    run_key,
    run_view,
    stage_view,
)
from techdeck_tasks.pipeline.runs.view import RunView, StageView
from techdeck_tasks.storage.database import transaction


class RunReader:
    """Reads runs, stages and parts. Safe to share between threads; each call is one transaction.

    Args:
        engine: the database.
        cipher: opens definitions.
    """

    def __init__(self, engine: Engine, cipher: Cipher) -> None:
        self._engine = engine
        self._cipher = cipher

    def queued_stages(self, run_id: str, *, needing: str | None = None) -> list[ReadyStage]:
        """Return the stages that wait for a worker, in order: all, or those that need the stage `needing`.

        Sending them again is harmless, and makes up for a message that was never sent.
        """
        waiting = and_(StageRun.run_id == run_key(run_id), StageRun.state == StageState.QUEUED)
        if needing is not None:
            waiting = and_(waiting, StageRun.needs.contains([needing]))
        with transaction(self._engine) as connection:
            return ready_stages(connection, waiting)

    def get_definition(self, run_id: str) -> PipelineDefinition:
        """Return the definition a run was made from.

        Raises:
            PipelineExecutionError: there is no such run.
            EncryptionError: the stored definition cannot be opened with this process's keys.
        """
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            sealed = connection.scalar(select(PipelineRun.definition).where(PipelineRun.run_id == key))
        if sealed is None:
            raise no_run(key)
        return self._opened(key, sealed)

    def get_run(self, run_id: str) -> RunView:
        """Return a run with its stages.

        Raises:
            PipelineExecutionError: there is no such run.
        """
        key = run_key(run_id)
        with transaction(self._engine) as connection:
            row = connection.execute(RUNS.where(PipelineRun.run_id == key)).mappings().first()
            if row is None:
                raise no_run(key)
            whole = and_(StageRun.run_id == key, StageRun.part_of.is_(None))
            stages = connection.execute(STAGES.where(whole)).mappings().all()
            parts = part_counts(connection.execute(PARTS.where(StageRun.run_id == key)))
        return run_view(row, tuple(stage_view(stage, *parts.get(stage["name"], ())) for stage in stages))

    def get_stage(self, run_id: str, name: str) -> StageView:
        """Return one stage, or one part.

        Raises:
            KeyError: the run has none of that name.
        """
        with transaction(self._engine) as connection:
            row = connection.execute(STAGES.where(one_stage(run_key(run_id), name))).mappings().first()
        if row is None:
            raise KeyError(name)
        return stage_view(row)

    def get_outputs(self, run_id: str, stages: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return by stage, of those named, what it handed on, as it was delivered; none without data."""
        if not stages:
            return {}
        statement = select(StageRun.name, StageRun.output).where(
            StageRun.run_id == run_key(run_id), StageRun.name.in_(stages), StageRun.output.is_not(None)
        )
        with transaction(self._engine) as connection:
            return {row.name: row.output for row in connection.execute(statement)}

    def get_parts(self, run_id: str, stage: str) -> list[Part]:
        """Return the parts of a stage, in order; none where it was not split."""
        return self._parts(and_(StageRun.run_id == run_key(run_id), StageRun.part_of == stage))

    def _parts(self, condition: ColumnElement[bool]) -> list[Part]:
        statement = STAGES.where(condition, StageRun.part_of.is_not(None))
        with transaction(self._engine) as connection:
            return [part_of_row(row) for row in connection.execute(statement).mappings()]

    def list_runs(
        self,
        limit: int = 50,
        *,
        states: Collection[RunState] = (),
        before: tuple[datetime, str] | None = None,
    ) -> list[RunView]:
        """Return the youngest `limit` runs, youngest first, without their stages.

        Args:
            limit: how many.
            states: only runs in one of these; empty: in any.
            before: moment of creation and id of a run: only runs that come after it in the list.
        """
        statement = RUNS.order_by(PipelineRun.created_at.desc(), PipelineRun.run_id.desc()).limit(limit)
        if states:
            statement = statement.where(PipelineRun.state.in_(states))
        if before is not None:
            created_at, run_id = before
            place = tuple_(PipelineRun.created_at, PipelineRun.run_id)
            statement = statement.where(place < (created_at, run_key(run_id)))
        with transaction(self._engine) as connection:
            return [run_view(row) for row in connection.execute(statement).mappings()]

    def _opened(self, key: uuid.UUID, sealed: bytes) -> PipelineDefinition:
        return PipelineDefinition.model_validate_json(self._cipher.open(sealed, definition_aad(key)))


def definition_aad(key: uuid.UUID) -> bytes:
    """Return what the sealed definition of a run is bound to."""
    return b"pipeline_run.definition|" + key.bytes
