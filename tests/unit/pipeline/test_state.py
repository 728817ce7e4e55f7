from __future__ import annotations

from itertools import product

import pytest

from techdeck_tasks.errors import PipelineExecutionError
from techdeck_tasks.pipeline.runs.state import (
    FINAL_RUN_STATES,
    FINAL_STAGE_STATES,
    LEASED_STAGE_STATES,
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    Plan,
    RunState,
    StageState,
    blocked,
    broken,
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
    ("running", "split"),
    ("split", "queued"),
    ("split", "failed"),
    ("split", "cancelled"),
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


def plan(**known: StageState) -> Plan:
    return Plan({name: known.get(name, PENDING) for name in NEEDS}, NEEDS)


def test_a_stage_is_ready_when_all_it_needs_has_succeeded() -> None:
    assert ready(plan(), 1) == ["load"]
    assert ready(plan(load=SUCCEEDED), 1) == ["left", "right"]
    assert ready(plan(load=SUCCEEDED, left=SUCCEEDED), 1) == ["right"]
    assert ready(plan(load=SUCCEEDED, left=SUCCEEDED, right=StageState.RUNNING), 1) == []
    assert ready(plan(load=SUCCEEDED, left=SUCCEEDED, right=SUCCEEDED), 1) == ["join"]
    assert ready(plan(load=FAILED), 1) == []


@pytest.mark.parametrize("dead", [FAILED, StageState.SKIPPED, StageState.CANCELLED])
def test_what_depends_on_a_stage_that_did_not_succeed_is_blocked_however_far_away(dead: StageState) -> None:
    assert blocked(plan(load=SUCCEEDED, left=dead)) == ["join", "report"]
    assert set(blocked(plan(load=dead))) == {"left", "right", "join", "report"}


def test_nothing_is_blocked_while_all_goes_well() -> None:
    assert blocked(plan(load=SUCCEEDED, left=StageState.RETRYING)) == []


def test_blocking_finds_dependents_that_stand_before_what_they_need() -> None:
    states = dict(reversed(plan(load=FAILED).states.items()))
    assert set(blocked(Plan(states, NEEDS))) == set(NEEDS) - {"load"}


def of_states(**states: StageState) -> Plan:
    return Plan(states, dict.fromkeys(states, ()))


@pytest.mark.parametrize("moving", sorted(set(StageState) - FINAL_STAGE_STATES))
def test_a_run_goes_on_while_one_stage_can_move(moving: StageState) -> None:
    assert concluded(RunState.RUNNING, of_states(a=SUCCEEDED, b=moving, c=FAILED)) is None


def test_a_run_ends_as_its_stages_did() -> None:
    running = RunState.RUNNING
    assert concluded(running, of_states(a=SUCCEEDED, b=SUCCEEDED)) is RunState.SUCCEEDED
    assert concluded(running, of_states(a=SUCCEEDED, b=FAILED, c=StageState.SKIPPED)) is RunState.FAILED
    assert concluded(running, of_states(a=SUCCEEDED, b=StageState.CANCELLED)) is RunState.CANCELLED


# -- parts ------------------------------------------------------------------------------------------


def split(*parts: StageState, load: StageState = StageState.SPLIT, after: StageState = PENDING) -> Plan:
    """Return the plan of a stage with such parts, and of one that needs it."""
    names = [f"load~{number:04}" for number in range(len(parts))]
    states = {"load": load, **dict(zip(names, parts, strict=True)), "after": after}
    needs: dict[str, tuple[str, ...]] = {"load": (), "after": ("load",)}
    return Plan(states, needs, dict.fromkeys(names, "load"))


def test_of_the_parts_of_a_run_only_so_many_are_under_way() -> None:
    assert ready(split(PENDING, PENDING, PENDING), 2) == ["load~0000", "load~0001"]
    for state in LEASED_STAGE_STATES:
        assert ready(split(state, PENDING, PENDING), 2) == ["load~0001"]
        assert ready(split(state, state, PENDING), 2) == []
    assert ready(split(SUCCEEDED, SUCCEEDED, PENDING), 2) == ["load~0002"]


def test_parts_wait_while_their_stage_does_not_wait_for_them() -> None:
    for state in set(StageState) - {StageState.SPLIT, StageState.PENDING}:
        assert ready(split(SUCCEEDED, PENDING, load=state), 2) == (["after"] if state is SUCCEEDED else [])


def test_a_stage_is_ready_to_be_joined_when_its_last_part_has_succeeded() -> None:
    assert ready(split(SUCCEEDED, StageState.RUNNING), 9) == []
    assert ready(split(SUCCEEDED, SUCCEEDED), 9) == ["load"]


def test_a_part_that_failed_breaks_the_stage_that_waits_for_it_and_no_other() -> None:
    assert broken(split(SUCCEEDED, FAILED, FAILED)) == {"load": "load~0001"}
    assert broken(split(SUCCEEDED, StageState.RETRYING)) == {}
    assert broken(split(SUCCEEDED, FAILED, load=FAILED)) == {}


def test_a_run_ends_when_the_last_part_has_and_as_its_stages_did() -> None:
    skipped, cancelled = StageState.SKIPPED, StageState.CANCELLED
    for moving in sorted(set(StageState) - FINAL_STAGE_STATES):
        going_on = split(FAILED, moving, load=FAILED, after=skipped)
        assert concluded(RunState.RUNNING, going_on) is None
    ended = split(FAILED, cancelled, skipped, load=FAILED, after=skipped)
    assert concluded(RunState.RUNNING, ended) is RunState.FAILED
    assert blocked(split(FAILED, skipped, load=FAILED)) == ["after"]
