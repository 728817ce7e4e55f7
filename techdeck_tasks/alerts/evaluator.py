"""One evaluation: look, judge, store what follows, and send what waits.

What follows is decided and stored in one transaction, together with the notices; they are sent after it. So
two evaluators at once tell nothing twice, and one that dies loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine

from techdeck_tasks.alerts import statements
from techdeck_tasks.alerts.channels import Channel, Channels
from techdeck_tasks.alerts.condition import Condition, Judgement, Severity, judge
from techdeck_tasks.alerts.message import render
from techdeck_tasks.alerts.outbox import Delivery, Outbox, queue
from techdeck_tasks.alerts.record import AlertRecord
from techdeck_tasks.alerts.silence import Silence, silenced
from techdeck_tasks.alerts.situation import Situation, Sources, gather
from techdeck_tasks.alerts.state import Alert, AlertState, Notice, Policy, advance, announce
from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import TechDeckError
from techdeck_tasks.storage.database import transaction

logger = logging.getLogger(__name__)

APART = timedelta(seconds=45)
"""Beat asks each minute: what comes sooner is another beat's message for the same slot."""

KEPT = timedelta(days=90)
"""How long an alert is listed after its end; the audit log keeps it longer."""

OnDelivered = Callable[[str, Iterable[str], str], None]
"""Hears that a channel accepted a notice: the alert's type, what it told of, the channel's name."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation did.

    Attributes:
        evaluated: whether conditions were judged; not where another evaluator just did.
        firing: alerts that fire now.
        fired, resolved: those that began and ended with it.
        delivered, failed: notices that a channel took, or not.
        unknown: what of the situation could not be found out.
    """

    evaluated: bool
    firing: int
    fired: int
    resolved: int
    delivered: int
    failed: int
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """One alert before and after an evaluation, and what people must be told."""

    before: Alert | None
    after: Alert | None
    notices: tuple[Notice, ...] = ()

    def became(self, state: AlertState) -> bool:
        was = None if self.before is None else self.before.state
        return self.after is not None and self.after.state is state and was is not state


class AlertEvaluator:
    """Evaluates; safe to run in several processes at once.

    Args:
        engine: where alerts are kept.
        conditions: what may be wrong.
        sources: how the situation is found out.
        channels: who hears of it.
        policy: when alerts fire, end and are repeated.
        record: the audit log.
        clock: the time.
        tenant: whose alerts these are, in every title.
        on_delivered: hears of each notice that was accepted, before that is stored; where it raises, the
            notice is sent again later.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        conditions: Mapping[str, Condition],
        sources: Sources,
        channels: Channels,
        policy: Policy,
        record: AlertRecord,
        clock: Clock,
        tenant: str,
        on_delivered: OnDelivered,
    ) -> None:
        self._engine = engine
        self._conditions = conditions
        self._sources = sources
        self._channels = channels
        self._policy = policy
        self._record = record
        self._clock = clock
        self._tenant = tenant
        self._on_delivered = on_delivered
        self._outbox = Outbox(engine, clock)

    def evaluate(self, apart: timedelta = APART) -> Evaluation:
        """Judge the situation, store what follows, and send what is due.

        Args:
            apart: judge only if the last time was so long ago.

        Raises:
            ServiceUnavailableError: PostgreSQL is away; nothing was changed.
        """
        situation = gather(self._sources, self._clock.now())
        judgement = judge(self._conditions, situation)
        with transaction(self._engine) as connection:
            evaluated = statements.take_turn(connection, situation.now, apart)
            steps = self._step_all(connection, situation, judgement) if evaluated else []
        delivered, failed = self.deliver()
        return Evaluation(
            evaluated=evaluated,
            firing=sum(s.after is not None and s.after.state is AlertState.FIRING for s in steps),
            fired=sum(step.became(AlertState.FIRING) for step in steps),
            resolved=sum(step.became(AlertState.RESOLVED) for step in steps),
            delivered=delivered,
            failed=failed,
            unknown=tuple(sorted(situation.unknown)),
        )

    def _step_all(self, connection: Connection, situation: Situation, judgement: Judgement) -> list[_Step]:
        active = statements.lock_active(connection)
        silences = statements.silences_at(connection, situation.now)
        keys = sorted(active.keys() | judgement.findings.keys())
        steps = [self._step(active.get(key), key, situation, judgement, silences) for key in keys]
        statements.save(connection, [step.after for step in steps if step.after is not None])
        never_fired = [step.before for step in steps if step.before is not None and step.after is None]
        statements.forget(connection, never_fired, situation.now - KEPT)
        for step in steps:
            if step.after is not None:
                self._tell(connection, step, step.after, situation)
        return steps

    def _step(
        self,
        before: Alert | None,
        key: str,
        situation: Situation,
        judgement: Judgement,
        silences: Iterable[Silence],
    ) -> _Step:
        finding = judgement.findings.get(key)
        if before is not None and before.alert_type in judgement.undecided:
            after: Alert | None = before
        else:
            after = advance(before, finding, situation.now, self._policy)
        if after is None or silenced(after, silences):
            return _Step(before, after)
        escalates = bool(self._channels.escalation)
        told, notices = announce(after, finding, situation.now, self._policy, can_escalate=escalates)
        condition = self._conditions.get(after.alert_type)
        if condition is not None and not condition.tells_end:
            notices = [notice for notice in notices if notice is not Notice.RESOLVED]
        return _Step(before, told, tuple(notices))

    def _tell(self, connection: Connection, step: _Step, alert: Alert, situation: Situation) -> None:
        for state, operation in ((AlertState.FIRING, "alert.fired"), (AlertState.RESOLVED, "alert.resolved")):
            if step.became(state):
                logger.warning("%s: %s: %s", operation, alert.key, alert.message)
                self._record.happened(operation, alert)
        for notice in step.notices:
            if notice is Notice.ESCALATION:
                self._record.happened("alert.escalated", alert)
            names = [channel.name for channel in self._audience(alert, notice)]
            queue(connection, alert, notice, names, situation.now)

    def _audience(self, alert: Alert, notice: Notice) -> tuple[Channel, ...]:
        if notice is Notice.ESCALATION:
            return self._channels.escalation
        # Who was called must hear that it is over.
        late = self._channels.escalation if notice is Notice.RESOLVED and alert.escalated_at else ()
        return self._channels.primary + late

    # -- sending -----------------------------------------------------------------------------------

    def deliver(self) -> tuple[int, int]:
        """Send the notices that are due; return how many were accepted, and how many not.

        A channel that refuses one is left alone until the next time: a dead server costs one timeout.

        Raises:
            ServiceUnavailableError: PostgreSQL is away; what was sent last may be sent again.
        """
        delivered = 0
        resting: set[str] = set()
        while (delivery := self._outbox.claim(resting)) is not None:
            channel = self._channels.by_name.get(delivery.channel)
            problem = self._send(channel, delivery)
            if problem is None:
                self._outbox.accepted(delivery)
                delivered += 1
                continue
            resting.add(delivery.channel)
            for_good = channel is None or delivery.last_attempt
            facts = {"channel": delivery.channel, "notice": delivery.notice.value, "problem": problem}
            logger.error("alert %s: %s does not take it: %s", delivery.alert.key, delivery.channel, problem)
            self._record.happened("alert.undelivered", delivery.alert, given_up=for_good, **facts)
            self._outbox.refused(delivery, problem, for_good=for_good)
        return delivered, len(resting)

    def _send(self, channel: Channel | None, delivery: Delivery) -> str | None:
        if channel is None:
            return "the settings name no such channel any more"
        title, body = render(delivery.alert, delivery.notice, self._tenant)
        problem = channel.send(title, body, Severity(delivery.alert.severity))
        if problem is None and delivery.notice is not Notice.RESOLVED:
            try:
                self._on_delivered(delivery.alert.alert_type, delivery.items, channel.name)
            except TechDeckError as failure:
                return f"accepted, and that could not be noted ({failure.error_code})"
        return problem
