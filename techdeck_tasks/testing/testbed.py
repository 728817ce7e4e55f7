"""Everything a test of tasks and pipelines needs, in one object, with or without pytest."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from celery import Celery, Task, signals
from celery.result import AsyncResult

from techdeck_tasks.audit.reading.entry import AuditEntry
from techdeck_tasks.metrics import ErrorMetricsCollector
from techdeck_tasks.pipeline.runs.view import RunView
from techdeck_tasks.resilience.breaker import State
from techdeck_tasks.tasks.letters import Letter, LetterStore
from techdeck_tasks.tasks.replay import replay
from techdeck_tasks.testing.audit import InMemoryAuditTrail
from techdeck_tasks.testing.clock import FakeClock
from techdeck_tasks.testing.events import EventLog
from techdeck_tasks.testing.faults import Faults
from techdeck_tasks.testing.runtime import ClosedSettings, InMemoryRuntime
from techdeck_tasks.testing.takeover import FreshApp, taken_over

Target = Any
"""A task, its name, the result of one call of it, or that call's id. Celery ships no types to say so."""


@dataclass(frozen=True, slots=True)
class BreakerFacts:
    """A breaker as it is now."""

    name: str
    state: State
    failure_count: int


class TechDeckTestbed:
    """A Celery application in eager mode with every service in the process: no server, no waiting.

    Use it as a context manager::

        with TechDeckTestbed(lab.app) as techdeck:
            result = lab.fetch_results.delay("order-1")
            techdeck.assert_retried(result, times=2)

    Args:
        app: the application under test, lent until the end; default: a fresh one.
        clock: the time; default: one that stands still until somebody moves it.
        settings: fields of `Settings`; the environment is not read.

    Attributes:
        app: the application.
        clock: the time. The countdown of a retry moves it on.
        events: what listeners hear: `ErrorHandled`, `RetryScheduled`, `ExecutionSucceeded`, ...
        audit: the audit trail; ``audit.entries(error_code=..., outcome=...)``.
        faults: ``faults.inject(task_or_stage, error, times=1)``.
        runtime: the composition root, for whatever has no shortcut here.
    """

    def __init__(self, app: Celery | None = None, *, clock: FakeClock | None = None, **settings: Any) -> None:
        self._fresh = app is None
        self.app: Celery = FreshApp() if app is None else app
        self.clock = clock or FakeClock()
        self.runtime = InMemoryRuntime(ClosedSettings(**settings), self.clock, self.app)
        self.events = EventLog()
        self.runtime.listeners.add(self.events)
        self._retries: Counter[tuple[str, str]] = Counter()
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        if self._fresh:
            self._exit.callback(self.app.close)
        self._exit.enter_context(taken_over(self.app, self.runtime))
        signals.task_retry.connect(self._count_retry, weak=False)
        self._exit.callback(signals.task_retry.disconnect, self._count_retry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()

    # -- what happened ------------------------------------------------------------------------------

    @property
    def audit(self) -> InMemoryAuditTrail:
        """What is on record."""
        return self.runtime.audit_trail

    @property
    def faults(self) -> Faults:
        """Failures on demand."""
        return self.runtime.faults

    @property
    def dead_letters(self) -> LetterStore:
        """Tasks that failed for good: ``list()``, ``count()``, ``get(id)``."""
        return self.runtime.dead_letters

    @property
    def interventions(self) -> LetterStore:
        """Tasks that wait for a person."""
        return self.runtime.interventions

    def replay(self, letter: Letter) -> str:
        """Run the task of a letter again, as an operator does; return the task's id.

        Raises:
            CircuitBreakerError: the task's breaker is open; the letter stays.
        """
        stores = (self.dead_letters, self.interventions)
        store = next(
            store for store in stores if letter.letter_id in {kept.letter_id for kept in store.list()}
        )
        return replay(self.app, store, letter.letter_id, self.runtime.breakers)

    def breaker(self, name: str) -> BreakerFacts:
        """Return the breaker `name`: that of a service, or of a task that declares none."""
        status = self.runtime.breakers.get_status(name)
        return BreakerFacts(name, State(status["state"]), status["failure_count"])

    def retry_statistics(self, operation: str | None = None) -> dict[str, Any]:
        """Return the statistics of retries, of one task's name or of all."""
        return self.runtime.retry_registry.get_statistics(operation)

    @property
    def metrics(self) -> ErrorMetricsCollector:
        """Statistics, trend and alert conditions of what ran under this testbed."""
        self.runtime.metrics.flush()
        return self.runtime.metrics

    def run(self, run: AsyncResult | str) -> RunView:
        """Return a pipeline's run, by the result of `pipeline_execute` or by its id."""
        run_id = run if isinstance(run, str) else run.get()["run_id"]
        return self.runtime.pipeline_store.get_run(run_id)

    def retries_of(self, target: Target) -> int:
        """Return how often `target` was retried, by its policy or by its own ``self.retry()``."""
        name = self._name(target)
        return sum(count for key, count in self._retries.items() if name in key)

    # -- assertions ---------------------------------------------------------------------------------

    def assert_retried(self, target: Target, times: int | None = None) -> None:
        """Check that `target` was retried `times` times; None: at all."""
        __tracebackhide__ = True
        found = self.retries_of(target)
        if found == times or (times is None and found):
            return
        wanted = "retried" if times is None else f"retried {times} x"
        raise AssertionError(f"{self._name(target)} was to be {wanted} and was {found} x.\n{self._history()}")

    def assert_audited(self, *, times: int | None = None, **wanted: Any) -> list[AuditEntry]:
        """Check that `times` events (None: at least one) are on record, and return them.

        Args:
            times: how many.
            wanted: columns and their values, as for ``audit.entries``.
        """
        __tracebackhide__ = True
        found = self.audit.entries(**wanted)
        if len(found) == times or (times is None and found):
            return found
        facts = ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "anything"
        number = "an event" if times is None else f"{times} events"
        raise AssertionError(f"{number} with {facts} wanted, {len(found)} on record.\n{self._history()}")

    def assert_breaker(self, name: str, state: State | str) -> None:
        """Check that the breaker `name` is ``closed``, ``open``, ``half-open`` or overridden."""
        __tracebackhide__ = True
        found, wanted = self.breaker(name), State(state)
        if found.state is wanted:
            return
        known = ", ".join(
            f"{other} ({self.breaker(other).state})"
            for other in self.runtime.breakers.names()
            if other != name
        )
        raise AssertionError(
            f"the breaker {name!r} was to be {wanted} and is {found.state} ({found.failure_count} failures); "
            f"others: {known or 'none'}.\n{self._history()}"
        )

    def _count_retry(self, sender: Task, request: Any, reason: Any, **_: Any) -> None:
        # One without a successor waits for a person.
        if sender.app is self.app and reason.sig is not None:
            self._retries[sender.name, request.id] += 1

    def _name(self, target: Target) -> str:
        if isinstance(target, str):
            return target
        return str(target.id if isinstance(target, AsyncResult) else target.name)

    def _history(self) -> str:
        """Return what is on record, a line an event, for the message of a failed assertion."""
        lines = [
            f"  {entry.record.outcome or entry.record.event_type:<10} {entry.record.error_code or '-':<22} "
            f"{entry.record.operation} attempt={entry.record.attempt} service={entry.record.service}: "
            f"{(entry.document or {}).get('message', '')}"
            for entry in self.audit.entries()
        ]
        return "\n".join(["On record:", *lines]) if lines else "Nothing is on record."
