"""Which stages of a run wait for a circuit breaker, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from techdeck_tasks.pipeline.runs.view import RunView, StageView
from techdeck_tasks.pipeline.tasks import STAGE_PREFIX
from techdeck_tasks.resilience.breaker import State
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.tasks.guard import breaker_name

_WAITING = ("queued", "retrying")


@dataclass(frozen=True, slots=True)
class Parked:
    """A breaker that lets nothing through; `until` None: until an operator clears it."""

    breaker: str
    state: str
    until: datetime | None

    @property
    def end(self) -> str:
        """Until when, in words."""
        return f"until {self.until:%H:%M:%S} UTC" if self.until else "until it is cleared"

    def __str__(self) -> str:
        return f"breaker {self.breaker} is {self.state} {self.end}"


def parked_stages(runtime: Runtime, run: RunView) -> dict[str, Parked]:
    """Return, by name, the stages of `run` that a breaker keeps waiting: a round trip for each that waits."""
    assert runtime.app is not None
    found: dict[str, Parked] = {}
    for stage in run.stages:
        task = runtime.app.tasks.get(STAGE_PREFIX + stage.kind)
        name = breaker_name(task.breaker, task.service_name) if task is not None else None
        if name is None or not _waits(stage):
            continue
        parked = parked_by(name, runtime.breakers.get_status(name), runtime.clock.now())
        if parked is not None:
            found[stage.name] = parked
    return found


def parked_by(name: str, status: Mapping[str, Any], now: datetime) -> Parked | None:
    """Return how the breaker `name` keeps its calls from being made; None where it does not. Pure."""
    if status["state"] == State.OPEN:
        left_s = status["retry_after_seconds"]
    elif status["state"] == State.FORCED_OPEN:
        left_s = status["override"]["seconds_left"]
    else:
        return None
    return Parked(name, status["state"], None if left_s is None else now + timedelta(seconds=left_s))


def _waits(stage: StageView) -> bool:
    return stage.state in _WAITING or any(stage.parts.get(state) for state in _WAITING)
