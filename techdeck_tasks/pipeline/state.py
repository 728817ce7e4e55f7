"""The states of runs and stages, and which follows which; the only place that says so.

The store builds the ``WHERE state IN (...)`` of its compare-and-set updates from these tables, so that what
the tests say of the tables is true of the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from techdeck_tasks.errors import PipelineExecutionError


class RunState(StrEnum):
    """Where a run is. Each comment names the transition that sets the state."""

    QUEUED = "queued"  # created: the definition is stored, no stage has begun
    RUNNING = "running"  # the first stage was claimed by a worker
    SUCCEEDED = "succeeded"  # the last stage ended, and every stage succeeded
    FAILED = "failed"  # the last stage that could run ended, and at least one failed
    CANCELLED = "cancelled"  # somebody called it off


class StageState(StrEnum):
    """Where a stage is. Each comment names the transition that sets the state."""

    PENDING = "pending"  # created: at least one of its `needs` has not succeeded yet
    QUEUED = "queued"  # its last need succeeded (or it has none): a message may be sent
    RUNNING = "running"  # a worker claimed it for one attempt of one task
    RETRYING = "retrying"  # the attempt failed and another one is scheduled
    SUCCEEDED = "succeeded"  # the holder of the claim delivered its output
    FAILED = "failed"  # its task gave up: no attempt follows
    SKIPPED = "skipped"  # a stage it needs, directly or not, failed
    CANCELLED = "cancelled"  # the run was called off before it ended


RUN_TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    # queued -> failed: the message of the first stage could not be sent, or gave up before any claim.
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

STAGE_TRANSITIONS: Mapping[StageState, frozenset[StageState]] = {
    StageState.PENDING: frozenset({StageState.QUEUED, StageState.SKIPPED, StageState.CANCELLED}),
    # queued -> failed: the task gave up before it could claim, for example because PostgreSQL was away.
    StageState.QUEUED: frozenset({StageState.RUNNING, StageState.FAILED, StageState.CANCELLED}),
    StageState.RUNNING: frozenset(
        {
            # running -> running: a later attempt of the same task, after the process of the earlier one died.
            StageState.RUNNING,
            StageState.RETRYING,
            StageState.SUCCEEDED,
            StageState.FAILED,
            StageState.CANCELLED,
        }
    ),
    StageState.RETRYING: frozenset({StageState.RUNNING, StageState.FAILED, StageState.CANCELLED}),
    StageState.SUCCEEDED: frozenset(),
    StageState.FAILED: frozenset(),
    StageState.SKIPPED: frozenset(),
    StageState.CANCELLED: frozenset(),
}

FINAL_RUN_STATES = frozenset(state for state, following in RUN_TRANSITIONS.items() if not following)
FINAL_STAGE_STATES = frozenset(state for state, following in STAGE_TRANSITIONS.items() if not following)

S = TypeVar("S", RunState, StageState)


def stage_sources(target: StageState) -> frozenset[StageState]:
    """Return the states from which a stage may enter `target`."""
    return _sources(STAGE_TRANSITIONS, target)


def run_sources(target: RunState) -> frozenset[RunState]:
    """Return the states from which a run may enter `target`."""
    return _sources(RUN_TRANSITIONS, target)


def check_stage_transition(old: StageState, new: StageState) -> None:
    """Accept a legal transition.

    Raises:
        PipelineExecutionError: a stage never goes from `old` to `new`.
    """
    _check("stage", STAGE_TRANSITIONS[old], old, new)


def check_run_transition(old: RunState, new: RunState) -> None:
    """Accept a legal transition.

    Raises:
        PipelineExecutionError: a run never goes from `old` to `new`.
    """
    _check("run", RUN_TRANSITIONS[old], old, new)


def concluded(stages: Mapping[str, StageState]) -> RunState | None:
    """Return the final state of a run whose stages are in these states; None while one can still move."""
    if any(state not in FINAL_STAGE_STATES for state in stages.values()):
        return None
    if StageState.CANCELLED in stages.values():
        return RunState.CANCELLED
    if all(state is StageState.SUCCEEDED for state in stages.values()):
        return RunState.SUCCEEDED
    return RunState.FAILED


def ready(stages: Mapping[str, StageState], needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the pending stages whose needs have all succeeded, in the order of `stages`."""
    return [
        name
        for name, state in stages.items()
        if state is StageState.PENDING and all(stages[need] is StageState.SUCCEEDED for need in needs[name])
    ]


def blocked(stages: Mapping[str, StageState], needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the pending stages that can never run: one they need, directly or not, did not succeed."""
    dead = {name for name, state in stages.items() if state in FINAL_STAGE_STATES - {StageState.SUCCEEDED}}
    found: list[str] = []
    spreading = True
    while spreading:
        spreading = False
        for name, state in stages.items():
            if state is StageState.PENDING and name not in dead and not dead.isdisjoint(needs[name]):
                dead.add(name)
                found.append(name)
                spreading = True
    return found


def _sources(table: Mapping[S, frozenset[S]], target: S) -> frozenset[S]:
    return frozenset(state for state, following in table.items() if target in following)


def _check(what: str, allowed: frozenset[S], old: S, new: S) -> None:
    if new not in allowed:
        options = ", ".join(sorted(allowed)) or "nothing: it is final"
        raise PipelineExecutionError(f"a {what} cannot go from {old} to {new}; from {old} follows {options}")
