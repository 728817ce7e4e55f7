"""The rows of a run that begins."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from techdeck_tasks.pipeline.definition import PipelineDefinition
from techdeck_tasks.pipeline.runs.state import RunState, StageState


def run_row(key: uuid.UUID, definition: PipelineDefinition, now: datetime) -> dict[str, Any]:
    """Return the run's row, without its sealed definition."""
    return {
        "run_id": key,
        "name": definition.name,
        "state": RunState.QUEUED,
        "priority": definition.priority,
        "created_at": now,
    }


def stage_rows(key: uuid.UUID, definition: PipelineDefinition) -> list[dict[str, Any]]:
    """Return the rows of the run's stages."""
    return [
        {
            "run_id": key,
            "name": spec.name,
            "kind": spec.kind,
            "position": position,
            "needs": list(spec.needs),
            "state": StageState.PENDING,
            "attempt": 0,
            "timeout_seconds": spec.timeout_seconds,
        }
        for position, spec in enumerate(definition.stages)
    ]
