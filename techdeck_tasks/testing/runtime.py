"""The composition root of a test suite: every service is real, and every server is in the process."""

from __future__ import annotations

import random
import secrets
from collections import deque
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import fsspec
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import Engine

from techdeck_tasks.audit.event import AuditTrail
from techdeck_tasks.events import Event, RetryScheduled
from techdeck_tasks.keyring import KEY_BYTES, Cipher, KeySet
from techdeck_tasks.metrics import MetricsStore
from techdeck_tasks.pipeline.data.artifacts import ArtifactStore
from techdeck_tasks.pipeline.runs.attempt import Cut, Done
from techdeck_tasks.pipeline.runs.execution import PipelineEngine
from techdeck_tasks.pipeline.runs.parts import Part
from techdeck_tasks.pipeline.runs.statements import ReadyStage
from techdeck_tasks.pipeline.tasks import CeleryDispatcher, register
from techdeck_tasks.resilience.breaker import BreakerRegistry
from techdeck_tasks.resilience.recovery import RecoveryManager
from techdeck_tasks.resilience.statistics import RetryRegistry
from techdeck_tasks.runtime import Runtime
from techdeck_tasks.settings import Settings
from techdeck_tasks.tasks.letters import LetterKind, LetterStore
from techdeck_tasks.testing.audit import InMemoryAuditTrail
from techdeck_tasks.testing.breaker import in_memory_breakers
from techdeck_tasks.testing.clock import FakeClock
from techdeck_tasks.testing.database import in_memory_database
from techdeck_tasks.testing.faults import Faults
from techdeck_tasks.testing.letters import InMemoryShelf
from techdeck_tasks.testing.metrics import InMemoryMetricsStore

if TYPE_CHECKING:
    from celery import Celery

_KEY = "testing"


class ClosedSettings(Settings):
    """Settings that nothing outside the test changes: no environment, no files. Unknown names are refused."""

    model_config = SettingsConfigDict(extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what the test gives, and nothing else."""
        return (init_settings,)


class InMemoryRuntime(Runtime):
    """A runtime without Redis and PostgreSQL, for one application in eager mode.

    Time stands still but for the countdowns of retries, which move the clock and are not waited for.

    Args:
        settings: what the test sets.
        clock: the time.
        app: whose pipelines are run.
    """

    keeps_eager_letters = True

    def __init__(self, settings: Settings, clock: FakeClock, app: Celery) -> None:
        # The same jitter in every run of a test.
        super().__init__(settings, clock=clock, rng=random.Random(0))  # noqa: S311 - jitter is no secret
        self.audit_trail = InMemoryAuditTrail(clock, settings.tenant, settings.audit_fail_policy)
        self.faults = Faults(app)
        self.listeners.add(_Countdowns(clock))
        self._artifact_url = f"memory://techdeck-{secrets.token_hex(8)}"

    @cached_property
    def cipher(self) -> Cipher:
        """Seals with a key of its own."""
        return Cipher(KeySet(_KEY, {_KEY: secrets.token_bytes(KEY_BYTES)}))

    @property
    def trail(self) -> AuditTrail:
        """What the error handler records to."""
        return self.audit_trail

    @cached_property
    def breakers(self) -> BreakerRegistry:
        """Real breakers, whose state is in the process."""
        return in_memory_breakers(self.settings, clock=self.clock, listener=self.listeners)

    @cached_property
    def recovery(self) -> RecoveryManager:
        """The strategies, with neither connections nor a cache to act on."""
        return RecoveryManager(self.settings, clock=self.clock, discover=True)

    @cached_property
    def retry_registry(self) -> RetryRegistry:
        """Counts this process alone."""
        return RetryRegistry(None, clock=self.clock)

    @cached_property
    def metrics_store(self) -> MetricsStore:
        """Counts this process alone."""
        retention = timedelta(hours=self.settings.metrics_retention_hours)
        return InMemoryMetricsStore(retention, clock=self.clock)

    @cached_property
    def dead_letters(self) -> LetterStore:
        """Tasks that failed for good."""
        return LetterStore(InMemoryShelf(LetterKind.DEAD), self.cipher, self.clock)

    @cached_property
    def interventions(self) -> LetterStore:
        """Tasks that wait for a person."""
        return LetterStore(InMemoryShelf(LetterKind.INTERVENTION), self.cipher, self.clock)

    @cached_property
    def engine(self) -> Engine:
        """A database in memory, with the tables of pipelines."""
        return in_memory_database()

    @cached_property
    def pipeline(self) -> PipelineEngine:
        """Runs pipelines, one stage after the other."""
        assert self.app is not None, "an in-memory runtime is used through a TechDeckTestbed"
        return _FaultyEngine(self, ArtifactStore(self._artifact_url, self.cipher), _OneByOne(self.app))

    @property
    def redis(self) -> NoReturn:
        """Refuse."""
        raise RuntimeError("a testbed has no Redis; test this part with a real one")

    def close(self) -> None:
        """Forget the data and give memory back."""
        self.faults.withdraw()
        if "engine" in self.__dict__:
            self.engine.dispose()
        files = fsspec.filesystem("memory")
        if files.exists(self._artifact_url):
            files.rm(self._artifact_url, recursive=True)


class _Countdowns:
    """Moves the clock by the delay of each retry, which eager mode does not wait for."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def on_event(self, event: Event) -> None:
        if isinstance(event, RetryScheduled):
            self._clock.elapsed += event.delay_s


class _OneByOne(CeleryDispatcher):
    """Runs a stage when the one before it has ended, as a worker would, and not inside of it."""

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self._waiting: deque[tuple[str, ReadyStage]] = deque()
        self._busy = False

    def send(self, run_id: str, stage: ReadyStage) -> None:
        """Run the stage, and what it makes ready; or leave it to the call that is at it."""
        self._waiting.append((run_id, stage))
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                # A stage may be declared in the test itself, after its app was made.
                register(self._app)
                super().send(*self._waiting.popleft())
        finally:
            self._busy = False
            self._waiting.clear()


class _FaultyEngine(PipelineEngine):
    """Meets the injected failures where a stage's body would begin."""

    def __init__(self, runtime: InMemoryRuntime, artifacts: ArtifactStore, dispatcher: _OneByOne) -> None:
        super().__init__(runtime.pipeline_store, artifacts, dispatcher, runtime.clock)
        self._faults = runtime.faults

    def _execute(
        self, run_id: str, stage_name: str, part: Part | None, attempt: int, task_id: str
    ) -> Done | Cut:
        kind = self.store.get_stage(run_id, stage_name).kind
        self._faults.strike_stage(stage_name, kind)
        return super()._execute(run_id, stage_name, part, attempt, task_id)
