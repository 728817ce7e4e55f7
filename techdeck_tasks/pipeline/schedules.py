"""Definitions that are started again and again. Beat asks; each slot is started once, however many ask."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import TechDeckError, ValidationError
from techdeck_tasks.pipeline.cron import latest_slot
from techdeck_tasks.pipeline.data.sealed_file import Cipher
from techdeck_tasks.pipeline.definition import PipelineDefinition
from techdeck_tasks.pipeline.models import PipelineSchedule
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.storage.database import transaction

logger = logging.getLogger(__name__)

# A run's id follows from its schedule and slot: two that start the same slot start the same run.
_NAMESPACE = uuid.UUID("6a0d0d3e-3c2b-4d0c-9a57-0f6d3f1d9f51")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A scheduled pipeline. `last_slot` is the slot started last; until the first, when it was added."""

    name: str
    cron: str
    last_slot: datetime


class Schedules:
    """Keeps schedules in PostgreSQL.

    Args:
        engine: the database.
        cipher: seals the definitions.
        clock: the time.
        pipelines: starts runs.
    """

    def __init__(self, engine: Engine, cipher: Cipher, clock: Clock, pipelines: PipelineEngine) -> None:
        self._engine = engine
        self._cipher = cipher
        self._clock = clock
        self._pipelines = pipelines

    def add(self, definition: PipelineDefinition) -> Schedule:
        """Start `definition` at each slot of its `schedule` from now on; replaces one of the same name.

        Raises:
            ValidationError: the definition has no `schedule`.
        """
        if definition.schedule is None:
            raise ValidationError(
                f"pipeline {definition.name!r} has no schedule; add one, such as: schedule: '0 6 * * *'",
                field="schedule",
            )
        document = json.dumps(definition.to_dict(), separators=(",", ":")).encode()
        now = self._clock.now()
        row = {
            "cron": definition.schedule,
            "definition": self._cipher.seal(document, _aad(definition.name)),
            "created_at": now,
            "last_slot": now,
        }
        statement = insert(PipelineSchedule).values(name=definition.name, **row)
        with transaction(self._engine) as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))
        return Schedule(definition.name, definition.schedule, now)

    def remove(self, name: str) -> None:
        """End a schedule; runs it has started go on.

        Raises:
            ValidationError: there is none of that name.
        """
        with transaction(self._engine) as connection:
            gone = connection.execute(delete(PipelineSchedule).where(PipelineSchedule.name == name))
        if not gone.rowcount:
            raise ValidationError(f"there is no schedule {name!r}; see techdeck schedule list", field="name")

    def list_schedules(self) -> list[Schedule]:
        """Return every schedule, by name."""
        statement = select(PipelineSchedule.name, PipelineSchedule.cron, PipelineSchedule.last_slot).order_by(
            PipelineSchedule.name
        )
        with transaction(self._engine) as connection:
            return [Schedule(**row) for row in connection.execute(statement).mappings()]

    def start_due(self) -> list[str]:
        """Start what is due and return the runs' ids.

        The run is started before its slot is noted: a process that dies in between leaves the slot due, and
        the next one finds the run there. Of slots that passed while nobody asked, the latest is started.
        """
        started = []
        now = self._clock.now()
        for schedule in self.list_schedules():
            slot = latest_slot(schedule.cron, schedule.last_slot, now)
            if slot is None:
                continue
            try:
                started.append(self._start(schedule, slot))
            except TechDeckError as trouble:
                # One pipeline that cannot be started now must not keep the others waiting.
                logger.warning("pipeline %s is not started for %s yet: %s", schedule.name, slot, trouble)
        return started

    def _start(self, schedule: Schedule, slot: datetime) -> str:
        with transaction(self._engine) as connection:
            sealed = connection.scalar(
                select(PipelineSchedule.definition).where(PipelineSchedule.name == schedule.name)
            )
        if sealed is None:
            raise ValidationError(f"schedule {schedule.name!r} was removed meanwhile", field="name")
        definition = PipelineDefinition.model_validate_json(self._cipher.open(sealed, _aad(schedule.name)))
        moment = slot.astimezone(UTC).isoformat()
        run_id = str(uuid.uuid5(_NAMESPACE, f"{schedule.name}|{moment}"))
        self._pipelines.start(run_id, definition, f"schedule:{schedule.name}:{moment}")
        with transaction(self._engine) as connection:
            connection.execute(
                update(PipelineSchedule)
                .where(PipelineSchedule.name == schedule.name, PipelineSchedule.last_slot < slot)
                .values(last_slot=slot)
            )
        return run_id


def _aad(name: str) -> bytes:
    return b"pipeline_schedule.definition|" + name.encode()
