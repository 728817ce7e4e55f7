"""The states of runs and stages, and which follows which; the only place that says so.

The store builds the ``WHERE state IN (...)`` of its compare-and-set updates from these tables, so that what
the tests say of the tables is true of the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from techdeck_tasks.errors import PipelineExecutionError


class RunState(StrEnum):
    """Where a run is. Each comment names the transition that sets the state."""

    QUEUED = "queued"  # created, or resumed: the definition is stored, no stage has begun
    RUNNING = "running"  # a stage was claimed by a worker
    CANCELLING = "cancelling"  # somebody called it off while a stage was running
    SUCCEEDED = "succeeded"  # the last stage ended, and every stage succeeded
    FAILED = "failed"  # the last stage that could run ended, and at least one failed
    CANCELLED = "cancelled"  # somebody called it off, and no stage is running any more


class StageState(StrEnum):
    """Where a stage is. Each comment names the transition that sets the state."""

    PENDING = "pending"  # created, or resumed: at least one of its `needs` has not succeeded yet
    QUEUED = "queued"  # its last need succeeded, or its attempt was lost: a message may be sent
    RUNNING = "running"  # a worker claimed it for one attempt of one task
    RETRYING = "retrying"  # the attempt failed and another one is scheduled
    SPLIT = "split"  # its attempt cut it into parts, stages of their own, which it waits for
    SUCCEEDED = "succeeded"  # the holder of the claim delivered its output
    FAILED = "failed"  # its task gave up: no attempt follows
    SKIPPED = "skipped"  # a stage it needs, directly or not, failed
    CANCELLED = "cancelled"  # the run was called off before it ended


RUN_TRANSITIONS: Mapping[RunState, frozenset[RunState]] = {
    # queued -> failed: the message of the first stage could not be sent, or gave up before any claim.
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {RunState.CANCELLING, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.CANCELLING: frozenset({RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    # failed, cancelled -> queued: somebody resumed it.
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.CANCELLED: frozenset({RunState.QUEUED}),
}

STAGE_TRANSITIONS: Mapping[StageState, frozenset[StageState]] = {
    StageState.PENDING: frozenset({StageState.QUEUED, StageState.SKIPPED, StageState.CANCELLED}),
    # queued -> failed: the task gave up before it could claim, for example because PostgreSQL was away.
    StageState.QUEUED: frozenset({StageState.RUNNING, StageState.FAILED, StageState.CANCELLED}),
    StageState.RUNNING: frozenset(
        {
            # running -> running: a later attempt of the same task, after the process of the earlier one died.
            StageState.RUNNING,
            # running -> queued: nobody renewed its lease: the attempt is lost, and another one is sent.
            StageState.QUEUED,
            StageState.RETRYING,
            StageState.SPLIT,
            StageState.SUCCEEDED,
            StageState.FAILED,
            StageState.CANCELLED,
        }
    ),
    # retrying -> queued: its next attempt is overdue: the message is lost, and sent again.
    StageState.RETRYING: frozenset(
        {StageState.QUEUED, StageState.RUNNING, StageState.FAILED, StageState.CANCELLED}
    ),
    # split -> queued: all its parts succeeded, and are to be joined. split -> failed: one of them failed.
    StageState.SPLIT: frozenset({StageState.QUEUED, StageState.FAILED, StageState.CANCELLED}),
    StageState.SUCCEEDED: frozenset(),
    # failed, skipped, cancelled -> pending: the run was resumed.
    StageState.FAILED: frozenset({StageState.PENDING}),
    StageState.SKIPPED: frozenset({StageState.PENDING}),
    StageState.CANCELLED: frozenset({StageState.PENDING}),
}

FINAL_RUN_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
"""A run's life is over, unless somebody resumes it."""
RESUMABLE_RUN_STATES = frozenset({RunState.FAILED, RunState.CANCELLED})
CANCELLABLE_RUN_STATES = frozenset({RunState.QUEUED, RunState.RUNNING})
FINAL_STAGE_STATES = frozenset(
    {StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED, StageState.CANCELLED}
)
WAITING_STAGE_STATES = frozenset({StageState.QUEUED, StageState.RETRYING})
LEASED_STAGE_STATES = WAITING_STAGE_STATES | {StageState.RUNNING}
"""Somebody is to be heard of before the stage's lease ends: a message, or the worker that runs it."""

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


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's stages and their parts by name, in the order of the definition.

    Attributes:
        states: the state of each.
        needs: the stages that each stage needs; a part needs none.
        part_of: by part, the stage it is a part of.
    """

    states: dict[str, StageState]
    needs: Mapping[str, tuple[str, ...]]
    part_of: Mapping[str, str] = field(default_factory=dict)

    def parts(self, stage: str) -> list[str]:
        """The parts of a stage, in order."""
        return [part for part, whole in self.part_of.items() if whole == stage]


def concluded(run: RunState, plan: Plan) -> RunState | None:
    """Return the final state of a run in state `run`; None while a stage or part can still move."""
    if any(state not in FINAL_STAGE_STATES for state in plan.states.values()):
        return None
    stages = [state for name, state in plan.states.items() if name not in plan.part_of]
    if run is RunState.CANCELLING or StageState.CANCELLED in stages:
        return RunState.CANCELLED
    if all(state is StageState.SUCCEEDED for state in stages):
        return RunState.SUCCEEDED
    return RunState.FAILED


def ready(plan: Plan, parts_at_once: int) -> list[str]:
    """Return what may be sent to a worker, in the order of the plan.

    That are pending stages whose needs have all succeeded; stages whose parts have, for these to be joined;
    and pending parts, so that of all parts of the run at most `parts_at_once` are under way.
    """
    states = plan.states
    free = parts_at_once - sum(states[part] in LEASED_STAGE_STATES for part in plan.part_of)
    found = []
    for name, state in states.items():
        whole = plan.part_of.get(name)
        if whole is None:
            if _is_due(name, plan):
                found.append(name)
        elif state is StageState.PENDING and states[whole] is StageState.SPLIT and free > 0:
            found.append(name)
            free -= 1
    return found


def _is_due(stage: str, plan: Plan) -> bool:
    """Whether all that a stage waits for has succeeded: its needs, or its parts."""
    state = plan.states[stage]
    if state not in (StageState.PENDING, StageState.SPLIT):
        return False
    waits_for = plan.needs[stage] if state is StageState.PENDING else plan.parts(stage)
    return all(plan.states[name] is StageState.SUCCEEDED for name in waits_for)


def broken(plan: Plan) -> dict[str, str]:
    """Return the stages that wait for parts of which one failed for good: by stage, the first such part."""
    found: dict[str, str] = {}
    for part, whole in plan.part_of.items():
        if plan.states[whole] is StageState.SPLIT and plan.states[part] is StageState.FAILED:
            found.setdefault(whole, part)
    return found


def blocked(plan: Plan) -> list[str]:
    """Return the pending stages that can never run: one they need, directly or not, did not succeed."""
    stages = {name: state for name, state in plan.states.items() if name not in plan.part_of}
    dead = {name for name, state in stages.items() if state in FINAL_STAGE_STATES - {StageState.SUCCEEDED}}
    found: list[str] = []
    spreading = True
    while spreading:
        spreading = False
        for name, state in stages.items():
            if state is StageState.PENDING and name not in dead and not dead.isdisjoint(plan.needs[name]):
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
