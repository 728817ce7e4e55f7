from __future__ import annotations

from itertools import product

import pytest

from techdeck_tasks.errors import PipelineExecutionError
from techdeck_tasks.pipeline.state import (
    FINAL_RUN_STATES,
    FINAL_STAGE_STATES,
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    RunState,
    StageState,
    blocked,
    check_run_transition,
    check_stage_transition,
    concluded,
    ready,
    run_sources,
    stage_sources,
)

LEGAL_RUN = {
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("running", "cancelling"),
    ("cancelling", "cancelled"),
    ("failed", "queued"),
    ("cancelled", "queued"),
}
LEGAL_STAGE = {
    ("pending", "queued"),
    ("pending", "skipped"),
    ("pending", "cancelled"),
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "running"),
    ("running", "queued"),
    ("retrying", "queued"),
    ("failed", "pending"),
    ("skipped", "pending"),
    ("cancelled", "pending"),
    ("running", "retrying"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("retrying", "running"),
    ("retrying", "failed"),
    ("retrying", "cancelled"),
}


@pytest.mark.parametrize(("old", "new"), list(product(RunState, RunState)))
def test_a_run_moves_only_as_the_table_says(old: RunState, new: RunState) -> None:
    if (old, new) in LEGAL_RUN:
        check_run_transition(old, new)
        assert old in run_sources(new)
    else:
        with pytest.raises(PipelineExecutionError, match=f"cannot go from {old} to {new}"):
            check_run_transition(old, new)
        assert old not in run_sources(new)


@pytest.mark.parametrize(("old", "new"), list(product(StageState, StageState)))
def test_a_stage_moves_only_as_the_table_says(old: StageState, new: StageState) -> None:
    if (old, new) in LEGAL_STAGE:
        check_stage_transition(old, new)
        assert old in stage_sources(new)
    else:
        with pytest.raises(PipelineExecutionError, match=f"cannot go from {old} to {new}"):
            check_stage_transition(old, new)
        assert old not in stage_sources(new)


def test_the_tables_know_every_state() -> None:
    assert set(RUN_TRANSITIONS) == set(RunState)
    assert set(STAGE_TRANSITIONS) == set(StageState)


def test_every_state_can_be_reached_and_every_open_state_can_end() -> None:
    for table, start, final in (
        (RUN_TRANSITIONS, RunState.QUEUED, FINAL_RUN_STATES),
        (STAGE_TRANSITIONS, StageState.PENDING, FINAL_STAGE_STATES),
    ):
        reached = closure(table, start)  # type: ignore[arg-type]  # two enums, one function
        assert reached == set(table)
        for state in table:
            assert closure(table, state) & final  # type: ignore[arg-type]  # as above


def closure(table: dict[str, frozenset[str]], start: str) -> set[str]:
    found, todo = {start}, [start]
    while todo:
        for following in table[todo.pop()] - found:
            found.add(following)
            todo.append(following)
    return found


NEEDS = {"load": (), "left": ("load",), "right": ("load",), "join": ("left", "right"), "report": ("join",)}
PENDING, SUCCEEDED, FAILED = StageState.PENDING, StageState.SUCCEEDED, StageState.FAILED


def stages(**known: StageState) -> dict[str, StageState]:
    return {name: known.get(name, PENDING) for name in NEEDS}


def test_a_stage_is_ready_when_all_it_needs_has_succeeded() -> None:
    assert ready(stages(), NEEDS) == ["load"]
    assert ready(stages(load=SUCCEEDED), NEEDS) == ["left", "right"]
    assert ready(stages(load=SUCCEEDED, left=SUCCEEDED), NEEDS) == ["right"]
    assert ready(stages(load=SUCCEEDED, left=SUCCEEDED, right=StageState.RUNNING), NEEDS) == []
    assert ready(stages(load=SUCCEEDED, left=SUCCEEDED, right=SUCCEEDED), NEEDS) == ["join"]
    assert ready(stages(load=FAILED), NEEDS) == []


@pytest.mark.parametrize("dead", [FAILED, StageState.SKIPPED, StageState.CANCELLED])
def test_what_depends_on_a_stage_that_did_not_succeed_is_blocked_however_far_away(dead: StageState) -> None:
    assert blocked(stages(load=SUCCEEDED, left=dead), NEEDS) == ["join", "report"]
    assert set(blocked(stages(load=dead), NEEDS)) == {"left", "right", "join", "report"}


def test_nothing_is_blocked_while_all_goes_well() -> None:
    assert blocked(stages(load=SUCCEEDED, left=StageState.RETRYING), NEEDS) == []


def test_blocking_finds_dependents_that_stand_before_what_they_need() -> None:
    order = dict(reversed(NEEDS.items()))
    assert set(blocked({name: stages(load=FAILED)[name] for name in order}, order)) == set(NEEDS) - {"load"}


@pytest.mark.parametrize("moving", sorted(set(StageState) - FINAL_STAGE_STATES))
def test_a_run_goes_on_while_one_stage_can_move(moving: StageState) -> None:
    assert concluded(RunState.RUNNING, {"a": SUCCEEDED, "b": moving, "c": FAILED}) is None


def test_a_run_ends_as_its_stages_did() -> None:
    assert concluded(RunState.RUNNING, {"a": SUCCEEDED, "b": SUCCEEDED}) is RunState.SUCCEEDED
    assert (
        concluded(RunState.RUNNING, {"a": SUCCEEDED, "b": FAILED, "c": StageState.SKIPPED}) is RunState.FAILED
    )
    assert concluded(RunState.RUNNING, {"a": SUCCEEDED, "b": StageState.CANCELLED}) is RunState.CANCELLED
