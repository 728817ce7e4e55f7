"""What a reader sees of a run: frozen, and JSON-safe through `to_dict`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from techdeck_tasks.pipeline.runs.state import FINAL_RUN_STATES, RunState, StageState


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """One stage; moments are aware UTC.

    `attempt` counts from 0, `generation` how often it was resumed; the error is the last one, redacted. Where
    it was split, `parts` says how many parts are in each state, and `rows_done` counts the rows of all.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    state: StageState
    generation: int
    attempt: int
    task_id: str | None
    started_at: datetime | None
    finished_at: datetime | None
    rows_done: int | None
    rows_total: int | None
    output: dict[str, Any] | None
    report: dict[str, Any] | None
    error_id: str | None
    error_code: str | None
    error_message: str | None
    retry_at: datetime | None
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run with its stages in the order of the definition; `list_runs` leaves `stages` empty."""

    run_id: str
    name: str
    state: RunState
    priority: str
    idempotency_key: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    artifacts_removed_at: datetime | None
    error_id: str | None
    error_code: str | None
    error_message: str | None
    stages: tuple[StageView, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more, unless somebody resumes it."""
        return self.state in FINAL_RUN_STATES

    def stage(self, name: str) -> StageView:
        """Return the stage called `name`.

        Raises:
            KeyError: the run has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-safe data; moments are ISO 8601 with their offset."""
        document: dict[str, Any] = _plain(asdict(self))
        return document


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
