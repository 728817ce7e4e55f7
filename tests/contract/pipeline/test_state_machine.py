"""A walk through everything that may happen to a run, in any order: PostgreSQL follows the tables."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from techdeck_tasks.errors import BiasDetectionError, ServiceUnavailableError, WorkerLostError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline import parse_definition
from techdeck_tasks.pipeline.runs.control import RunControl
from techdeck_tasks.pipeline.runs.state import (
    CANCELLABLE_RUN_STATES,
    FINAL_RUN_STATES,
    FINAL_STAGE_STATES,
    LEASED_STAGE_STATES,
    RESUMABLE_RUN_STATES,
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    RunState,
    StageState,
)
from techdeck_tasks.pipeline.runs.store import PipelineStore
from techdeck_tasks.pipeline.runs.view import RunView, StageView

LEASE = timedelta(seconds=60)
NAMES = ("load", "left", "right", "join")
NEEDS = {"load": [], "left": ["load"], "right": ["load"], "join": ["left", "right"]}
PARTS = ("load~0000", "load~0001", "load~0002")
stages = st.sampled_from(NAMES + PARTS)
attempts = st.integers(0, 2)
tasks = st.sampled_from(["one", "two"])


class StoppedClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class RunMachine(RuleBasedStateMachine):
    """Every message may come at any time, doubled, late, or of an earlier life of its stage."""

    database: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.clock = StoppedClock()
        cipher = Cipher(KeySet("k", {"k": bytes(32)}))
        self.store = PipelineStore(self.database, cipher, self.clock, LEASE, parts_at_once=2)
        self.control = RunControl(self.database, self.clock, LEASE, parts_at_once=2)
        specs = [{"name": name, "stage": "dataset_load", "needs": NEEDS[name]} for name in NAMES]
        definition = parse_definition({"name": "walk", "source": {"url": "x.csv"}, "stages": specs})
        self.run_id, _ = self.store.create_run(str(uuid.uuid4()), definition)
        self.effects: dict[tuple[str, int], int] = {}
        self.seen, self.seen_stages = self.view(), self.rows()

    def view(self) -> RunView:
        return self.store.get_run(self.run_id)

    def rows(self) -> dict[str, StageView]:
        """Return every stage, and every part that is there."""
        parts = [part.name for part in self.store.get_parts(self.run_id, "load")]
        return {name: self.store.get_stage(self.run_id, name) for name in [*NAMES, *parts]}

    @rule()
    def ready(self) -> None:
        self.store.mark_ready(self.run_id)

    @rule(stage=stages, attempt=attempts, task=tasks, generation=st.integers(0, 1))
    def claim(self, stage: str, attempt: int, task: str, generation: int) -> None:
        run, before = self.view(), self.rows()
        if self.store.claim_stage(self.run_id, stage, attempt, task, generation):
            assert run.state in (RunState.QUEUED, RunState.RUNNING)
            assert before[stage].generation == generation
            assert before[stage].attempt <= attempt

    @rule(attempt=attempts, task=tasks)
    def split(self, attempt: int, task: str) -> None:
        before = self.rows()["load"]
        pieces = [{"of": len(PARTS)} for _ in PARTS]
        settled = self.store.split_stage(self.run_id, "load", pieces, attempt=attempt, task_id=task)
        if settled.accepted:
            assert (before.state, before.attempt, before.task_id) == (StageState.RUNNING, attempt, task)
            if all(part.state is StageState.SUCCEEDED for part in self.store.get_parts(self.run_id, "load")):
                # Waiting and joining follow in one step.
                self.seen_stages["load"] = replace(before, state=StageState.SPLIT)

    @rule(stage=stages, attempt=attempts, task=tasks)
    def succeed(self, stage: str, attempt: int, task: str) -> None:
        before = self.rows().get(stage)
        settled = self.store.succeed_stage(
            self.run_id, stage, attempt=attempt, task_id=task, output=None, report={}, rows=None
        )
        if settled.accepted:
            assert before is not None
            assert (before.state, before.attempt, before.task_id) == (StageState.RUNNING, attempt, task)
            life = (stage, before.generation)
            self.effects[life] = self.effects.get(life, 0) + 1

    @rule(stage=stages, task=tasks)
    def fail(self, stage: str, task: str) -> None:
        self.store.fail_stage(self.run_id, stage, BiasDetectionError("x"), task)

    @rule(stage=stages, attempt=attempts, task=tasks)
    def retry(self, stage: str, attempt: int, task: str) -> None:
        self.store.retry_stage(
            self.run_id,
            stage,
            ServiceUnavailableError("x"),
            attempt=attempt,
            next_attempt=attempt + 1,
            task_id=task,
            delay=timedelta(seconds=5),
        )

    @rule(stage=stages, attempt=attempts, task=tasks)
    def heartbeat(self, stage: str, attempt: int, task: str) -> None:
        self.store.renew_stage(self.run_id, stage, attempt, task)

    @rule(stage=stages, attempt=attempts, task=tasks)
    def stop(self, stage: str, attempt: int, task: str) -> None:
        self.store.stop_stage(self.run_id, stage, attempt, task)

    @rule(seconds=st.sampled_from([1, 61, 700]))
    def reconcile_after(self, seconds: int) -> None:
        self.clock.sleep(seconds)
        for overdue in self.control.overdue_stages():
            if overdue.run_id != self.run_id:
                continue
            if overdue.state is StageState.RUNNING:
                following = overdue.attempt + 1 if overdue.attempt < 2 else None
                self.control.lose_attempt(
                    overdue, WorkerLostError("x"), next_attempt=following, record=lambda: None
                )
            else:
                self.control.resend_stage(overdue)
            # What was seen is compared one step at a time.
            self.follow()

    @precondition(lambda self: self.view().state in CANCELLABLE_RUN_STATES)
    @rule()
    def cancel(self) -> None:
        self.control.cancel_run(self.run_id)

    @precondition(lambda self: self.view().state in RESUMABLE_RUN_STATES)
    @rule()
    def resume(self) -> None:
        before = self.rows()
        self.control.resume_run(self.run_id)
        after = self.rows()
        for name, stage in before.items():
            if stage.state is StageState.SUCCEEDED:
                assert after[name] == stage
            else:
                assert after[name].generation == stage.generation + 1
        self.seen, self.seen_stages = self.view(), after

    def follow(self) -> None:
        now = self.view()
        if now.state is not self.seen.state:
            assert reachable(RUN_TRANSITIONS, self.seen.state, now.state)
        stages = self.rows()
        for name, new in stages.items():
            old = self.seen_stages.get(name)
            if old is not None and new.state is not old.state:
                assert reachable(STAGE_TRANSITIONS, old.state, new.state), (name, old.state, new.state)
        self.seen, self.seen_stages = now, stages

    @invariant()
    def every_step_is_in_the_tables(self) -> None:
        self.follow()

    @invariant()
    def a_stage_has_one_effect(self) -> None:
        assert all(count == 1 for count in self.effects.values())

    @invariant()
    def a_run_ends_when_no_stage_can_move(self) -> None:
        view = self.view()
        ended = all(stage.state in FINAL_STAGE_STATES for stage in self.rows().values())
        assert ended == (view.state in FINAL_RUN_STATES)
        if view.state is RunState.SUCCEEDED:
            assert all(stage.state is StageState.SUCCEEDED for stage in view.stages)

    @invariant()
    def whoever_waits_will_be_looked_after(self) -> None:
        """Nothing is stuck: after a long silence each stage under way is found overdue."""
        stages = self.rows()
        under_way = {name for name, one in stages.items() if one.state in LEASED_STAGE_STATES}
        assert sum(name in PARTS for name in under_way) <= 2
        if stages["load"].state is StageState.SPLIT:
            assert under_way & set(PARTS), "a stage waits for parts, and somebody is to be heard of for them"
        silent = StoppedClock()
        silent.time = self.clock.time + timedelta(days=2)
        found = RunControl(self.database, silent, LEASE).overdue_stages()
        assert {one.name for one in found if one.run_id == self.run_id} == under_way


def reachable(table: object, old: str, new: str) -> bool:
    """Whether one rule, which may make a stage ready and end it at once, leads from `old` to `new`."""
    following = table[old]  # type: ignore[index]  # two enums, one function
    return new in following or any(new in table[step] for step in following)  # type: ignore[index]  # as above


@pytest.mark.timeout(180)
def test_whatever_happens_in_whatever_order_a_run_keeps_to_its_state_machine(own_database: Engine) -> None:
    RunMachine.database = own_database
    run_state_machine_as_test(
        RunMachine,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
