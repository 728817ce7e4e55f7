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


@dataclass
class Lease:
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
        self.leases: dict[str, Lease] = {}
        self.permits: list[int] = [0]
        self.probe_successes: dict[int, int] = {}
        self.row = 0
        self.override: tuple[State, int] | None = None
        self.reply = self.store.sync(NAME, self.config, NOTHING)
        self.serial = 0

    # -- what happens ------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 100, 900, 1000, 2000, 10_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        self.see(self.store.sync(NAME, self.config, NOTHING), "none")

    @rule()
    def a_call_asks(self) -> None:
        self.serial += 1
        permit_id = f"call-{self.serial}"
        before = self.reply
        reply = self.store.lease(NAME, self.config, permit_id)
        self.see(reply, "lease")
        if reply.override is not None and reply.override.state is State.DISABLED:
            assert reply.grant is Grant.PASS
        elif reply.override is not None and reply.override.state is State.FORCED_OPEN:
            assert reply.grant is Grant.DENIED
        elif reply.state is State.OPEN:
            assert reply.grant is Grant.DENIED
            assert reply.wait_ms == reply.open_left_ms > 0
        elif reply.state is State.HALF_OPEN:
            live = self.live(reply.epoch)
            assert (reply.grant is Grant.PROBE) == (live < self.config.probes)
            if reply.grant is Grant.DENIED:
                # A dead prober delays the next by at most its lease.
                assert 0 < reply.wait_ms <= self.config.lease_s * 1000
            else:
                self.leases[permit_id] = Lease(reply.epoch, self.now + 2000)
        else:
            assert reply.grant is Grant.PASS or before.drain_left_ms > 0
            if reply.grant is Grant.PASS:
                self.permits.append(reply.epoch)

    @rule(data=st.data(), age=st.sampled_from([0, 5_000]))
    def a_closed_call_succeeds(self, data: st.DataObject, age: int) -> None:
        epoch = data.draw(st.sampled_from(self.permits))
        before = self.reply
        reply = self.store.sync(NAME, self.config, Batch(epoch, 1, 0, age))
        self.see(reply, "success")
        if epoch != before.epoch and not self.expired_override():
            assert not reply.counted

    @rule(data=st.data(), cost=st.sampled_from([0, 5]))
    def a_closed_call_fails(self, data: st.DataObject, cost: int) -> None:
        epoch = data.draw(st.sampled_from(self.permits))
        before = self.reply
        reply = self.store.fail(NAME, self.config, NOTHING, epoch=epoch, cost=cost)
        if not reply.transitions and not reply.counted and before.epoch == reply.epoch:
            assert reply.failures == before.failures or self.config.counting is Counting.RATE
        if epoch != before.epoch:
            assert not reply.counted, "a result of another epoch changes nothing"
        self.see(reply, "failure")

    @rule(data=st.data(), outcome=st.sampled_from(list(ProbeOutcome)), again=st.booleans())
    def a_probe_reports(self, data: st.DataObject, outcome: ProbeOutcome, again: bool) -> None:
        if not self.leases:
            return
        permit_id = data.draw(st.sampled_from(sorted(self.leases)))
        lease = self.leases[permit_id]
        before = self.reply
        reply = self.store.settle(
            NAME, self.config, epoch=lease.epoch, permit_id=permit_id, outcome=outcome, cost=0
        )
        live = (
            before.state is State.HALF_OPEN
            and before.epoch == lease.epoch
            and lease.deadline > self.now
            and not self.expired_override()
        )
        assert reply.counted == live, "a result counts while its epoch lasts and its lease is live"
        if live and outcome is ProbeOutcome.OK:
            self.probe_successes[lease.epoch] = self.probe_successes.get(lease.epoch, 0) + 1
        if outcome is ProbeOutcome.IGNORED:
            assert (reply.state, reply.failures, reply.probe_successes) == (
                before.state,
                before.failures,
                before.probe_successes,
            ), "an ignored result frees the lease and changes nothing else"
        self.see(reply, "settle")
        if not again:
            lease.deadline = 0
        elif live:
            # Reported twice: the second changes nothing.
            lease.deadline = 0
            second = self.store.settle(
                NAME, self.config, epoch=lease.epoch, permit_id=permit_id, outcome=outcome, cost=0
            )
            assert not second.counted
            self.see(second, "none")

    @rule(
        state=st.sampled_from([State.FORCED_OPEN, State.DISABLED, State.SHADOW]),
        ttl_ms=st.sampled_from([0, 1500]),
    )
    def an_operator_overrides(self, state: State, ttl_ms: int) -> None:
        reply = self.store.override(NAME, self.config, state, ttl_ms=ttl_ms, owner="ann", reason="why")
        self.override = (state, self.now + ttl_ms if ttl_ms else 0)
        self.see(reply, "override")

    @rule()
    def an_operator_clears(self) -> None:
        self.override = None
        self.see(self.store.clear(NAME, self.config, owner="ann", reason="done"), "override")

    @rule(ms=st.sampled_from([1, 500, 60_000]))
    def the_other_side_asks_for_a_pause(self, ms: int) -> None:
        self.see(self.store.hold(NAME, self.config, hold_ms=ms, reason="429"), "hold")

    @rule()
    def an_operator_resets(self) -> None:
        self.see(self.store.reset(NAME, self.config, owner="ann", reason="fixed"), "reset")
        assert self.reply.state is State.CLOSED
        assert self.reply.failures == 0

    # -- what always holds -------------------------------------------------------------------------

    def see(self, reply: Reply, cause: str) -> None:
        before, self.reply = self.reply, reply
        epochs = [before.epoch, *(event.epoch for event in reply.transitions)]
        assert epochs == sorted(set(epochs)), "epochs grow"
        assert reply.epoch == epochs[-1], "one transition for each change of epoch"
        for event in reply.transitions:
            assert event.epoch >= event.at_ms - 0, "an epoch is at least its moment"
            if (event.old, event.new) == ("half-open", "closed") and cause == "settle":
                assert self.probe_successes.get(before.epoch, 0) >= self.config.success_threshold
            if event.old in {"open", "half-open"} and event.new == "closed":
                assert cause in {"settle", "reset", "override"}, "nothing else closes it"
            if event.new == "half-open" and event.old == "open":
                assert cause in {"lease", "override"}
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
            assert reply.open_left_ms <= 8000

    def expired_override(self) -> bool:
        return bool(self.reply.transitions) and self.reply.transitions[0].reason == "override expired"

    def live(self, epoch: int) -> int:
        return sum(lease.epoch == epoch and lease.deadline > self.now for lease in self.leases.values())

    @invariant()
    def live_probes_never_exceed_the_permits(self) -> None:
        if hasattr(self, "leases"):
            for epoch in {lease.epoch for lease in self.leases.values()}:
                assert self.live(epoch) <= self.config.probes

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "store"):
            machine = self.store._machines[NAME]
            assert len(machine.events) <= EVENTS_KEPT
            assert len(machine.buckets) <= 10
            assert len(machine.leases) <= self.config.probes


BreakerInvariants.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestBreakerInvariants = BreakerInvariants.TestCase
