"""Every invariant of the breaker, against a model that knows only what a user may rely on."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from techdeck_tasks.resilience.breaker import BreakerConfig, Counting, State
from techdeck_tasks.resilience.breaker.machine import EVENTS_KEPT
from techdeck_tasks.resilience.breaker.memory_store import MemoryBreakerStore
from techdeck_tasks.resilience.breaker.state import NOTHING, Batch, Grant, ProbeOutcome, Reply

NAME = "svc"
LEASE_MS = 2000
LONGEST_OPEN_MS = 8000


@dataclass
class Lease:
    id: str
    epoch: int
    deadline: int


class BreakerInvariants(RuleBasedStateMachine):
    """Drives one breaker by every operation in any order, with results that come late, twice, or never."""

    @initialize(
        threshold=st.integers(1, 4),
        successes=st.integers(1, 3),
        probes=st.integers(1, 3),
        rated=st.booleans(),
        drain_s=st.sampled_from([0.0, 0.5]),
    )
    def start(self, threshold: int, successes: int, probes: int, rated: bool, drain_s: float) -> None:
        self.config = BreakerConfig(
            counting=Counting.RATE if rated else Counting.CONSECUTIVE,
            failure_threshold=threshold,
            minimum_calls=threshold,
            success_threshold=successes,
            probes=probes,
            open_s=1.0,
            open_growth=2.0,
            open_cap_s=8.0,
            lease_s=2.0,
            window_s=5.0,
            drain_s=drain_s,
        )
        self.now = 1_700_000_000_000
        self.store = MemoryBreakerStore(lambda: self.now)
        self.leases: list[Lease] = []
        self.permits: list[int] = [0]
        self.probe_successes: dict[int, int] = {}
        self.open_until = 0
        self.override: tuple[State, int] | None = None
        self.reply = self.store.sync(NAME, self.config, NOTHING)

    # -- what happens ------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 100, 900, 1000, 2000, 10_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        self.see(self.store.sync(NAME, self.config, NOTHING), "none")

    @rule(permit_id=st.sampled_from("abcde"))
    def a_call_asks(self, permit_id: str) -> None:
        before = self.reply
        reply = self.store.lease(NAME, self.config, permit_id)
        self.see(reply, "lease")
        override = None if reply.override is None else reply.override.state
        if override is State.DISABLED:
            assert reply.grant is Grant.PASS
        elif override is State.FORCED_OPEN:
            assert reply.grant is Grant.DENIED
        elif reply.state is State.OPEN:
            assert reply.grant is Grant.DENIED
            assert reply.wait_ms == reply.open_left_ms > 0
        elif reply.state is State.HALF_OPEN:
            holds = any(lease.id == permit_id for lease in self.live(reply.epoch))
            free = len(self.live(reply.epoch)) < self.config.probes
            assert (reply.grant is Grant.PROBE) == (holds or free)
            if reply.grant is Grant.DENIED:
                assert 0 < reply.wait_ms <= LEASE_MS, "a dead prober delays the next by at most its lease"
            elif holds:
                for lease in self.live(reply.epoch):
                    if lease.id == permit_id:
                        lease.deadline = self.now + LEASE_MS
            else:
                self.leases.append(Lease(permit_id, reply.epoch, self.now + LEASE_MS))
        else:
            assert reply.grant is Grant.PASS or before.drain_left_ms > 0
            if reply.grant is Grant.PASS:
                self.permits.append(reply.epoch)

    @rule()
    def it_trips_and_becomes_due(self) -> None:
        for _ in range(self.config.failure_threshold):
            self.a_call_failed(self.reply.epoch, 0)
        self.now += self.reply.open_left_ms
        self.see(self.store.sync(NAME, self.config, NOTHING), "none")
        self.a_call_asks("a")

    @rule(data=st.data(), age=st.sampled_from([0, 5_000]))
    def a_closed_call_succeeds(self, data: st.DataObject, age: int) -> None:
        epoch = data.draw(st.sampled_from([self.reply.epoch, *self.permits]))
        before = self.reply
        reply = self.store.sync(NAME, self.config, Batch(epoch, 1, 0, age))
        self.see(reply, "success")
        if epoch != before.epoch:
            assert not reply.counted

    @rule(data=st.data(), cost=st.sampled_from([0, 5]))
    def a_closed_call_fails(self, data: st.DataObject, cost: int) -> None:
        self.a_call_failed(data.draw(st.sampled_from([self.reply.epoch, *self.permits])), cost)

    def a_call_failed(self, epoch: int, cost: int) -> None:
        before = self.reply
        reply = self.store.fail(NAME, self.config, NOTHING, epoch=epoch, cost=cost)
        if epoch != before.epoch:
            assert not reply.counted, "a result of another epoch changes nothing"
        if not reply.counted:
            assert reply.state is before.state
            assert reply.failures == before.failures or self.config.counting is Counting.RATE
        self.see(reply, "failure")

    @rule(data=st.data(), outcome=st.sampled_from(list(ProbeOutcome)))
    def a_probe_reports(self, data: st.DataObject, outcome: ProbeOutcome) -> None:
        if self.leases:
            self.settle(data.draw(st.sampled_from(self.leases)), outcome)

    @rule()
    def every_live_probe_succeeds(self) -> None:
        for lease in self.live(self.reply.epoch):
            self.settle(lease, ProbeOutcome.OK)

    def settle(self, lease: Lease, outcome: ProbeOutcome) -> None:
        before = self.reply
        reply = self.store.settle(
            NAME, self.config, epoch=lease.epoch, permit_id=lease.id, outcome=outcome, cost=0
        )
        live = (
            before.state is State.HALF_OPEN
            and before.epoch == lease.epoch
            and any(other.id == lease.id for other in self.live(lease.epoch))
            and not expired(reply)
        )
        assert reply.counted == live, "a result counts while its epoch lasts and its lease is live, once"
        if live and outcome is ProbeOutcome.OK:
            self.probe_successes[lease.epoch] = self.probe_successes.get(lease.epoch, 0) + 1
        if live and outcome in {ProbeOutcome.FAILED, ProbeOutcome.SLOW}:
            assert reply.state is State.OPEN
        if outcome is ProbeOutcome.IGNORED:
            assert (reply.state, reply.failures, reply.probe_successes) == (
                before.state,
                before.failures,
                before.probe_successes,
            ), "an ignored result frees the lease and changes nothing else"
        self.see(reply, "settle")
        for other in self.live(lease.epoch):
            # The same call may have asked again and holds its lease under the same id.
            if other.id == lease.id:
                other.deadline = 0

    @rule(
        action=st.sampled_from(["forced-open", "disabled", "shadow", "clear", "reset", "hold"]),
        ms=st.sampled_from([0, 1, 1500]),
    )
    def somebody_intervenes(self, action: str, ms: int) -> None:
        if action == "clear":
            self.override = None
            self.see(self.store.clear(NAME, self.config, owner="ann", reason="done"), "override")
        elif action == "reset":
            self.see(self.store.reset(NAME, self.config, owner="ann", reason="fixed"), "reset")
            assert self.reply.state is State.CLOSED
            assert self.reply.failures == 0
        elif action == "hold":
            self.see(self.store.hold(NAME, self.config, hold_ms=ms, reason="429"), "hold")
        else:
            state = State(action)
            reply = self.store.override(NAME, self.config, state, ttl_ms=ms, owner="ann", reason="why")
            self.override = (state, self.now + ms if ms else 0)
            self.see(reply, "override")

    # -- what always holds -------------------------------------------------------------------------

    def see(self, reply: Reply, cause: str) -> None:
        before, self.reply = self.reply, reply
        epochs = [before.epoch, *(event.epoch for event in reply.transitions)]
        assert epochs == sorted(set(epochs)), "epochs grow"
        assert reply.epoch == epochs[-1], "one transition for each change of epoch"
        for event in reply.transitions:
            assert event.epoch >= event.at_ms, "a lost counter starts above its past"
        changed = (before.state, reply.state)
        if changed == (State.HALF_OPEN, State.CLOSED) and cause != "reset":
            assert cause == "settle"
            assert self.probe_successes[before.epoch] >= self.config.success_threshold
        if changed == (State.OPEN, State.HALF_OPEN):
            assert cause == "lease"
            assert self.now >= self.open_until, "it stays open until its deadline"
        if changed == (State.OPEN, State.CLOSED):
            assert cause == "reset", "nothing else closes an open one"
        if changed == (State.CLOSED, State.HALF_OPEN):
            raise AssertionError(cause)
        if reply.override is None:
            if self.override is not None:
                assert 0 < self.override[1] <= self.now, "an override survives all but its end"
            self.override = None
        else:
            assert self.override is not None
            assert reply.override.state is self.override[0]
        if reply.state is State.CLOSED and self.config.counting is Counting.CONSECUTIVE:
            assert reply.failures < self.config.failure_threshold, "it trips at the threshold"
        if reply.state is State.OPEN:
            assert reply.open_left_ms <= LONGEST_OPEN_MS
            self.open_until = self.now + reply.open_left_ms

    def live(self, epoch: int) -> list[Lease]:
        return [lease for lease in self.leases if lease.epoch == epoch and lease.deadline > self.now]

    @invariant()
    def live_probes_never_exceed_the_permits(self) -> None:
        if hasattr(self, "leases"):
            for epoch in {lease.epoch for lease in self.leases}:
                assert len(self.live(epoch)) <= self.config.probes

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "store"):
            machine = self.store._machines[NAME]
            assert len(machine.events) <= EVENTS_KEPT
            assert len(machine.buckets) <= 10
            assert len(machine.leases) <= self.config.probes


def expired(reply: Reply) -> bool:
    return any(event.reason == "override expired" for event in reply.transitions)


BreakerInvariants.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestBreakerInvariants = BreakerInvariants.TestCase
