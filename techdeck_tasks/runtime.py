"""The composition root: the one place that reads settings and constructs clients."""

from __future__ import annotations

import logging
import os
import random
import weakref
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from celery import Celery, current_app, signals
from celery.local import Proxy
from redis import Redis
from sqlalchemy import Engine

from techdeck_tasks.alerts import AlertEvaluator, AlertStore
from techdeck_tasks.alerts.channels import Channels, open_channels
from techdeck_tasks.alerts.condition import load_conditions
from techdeck_tasks.alerts.conditions import DEADLINE_NEAR, SECURITY_INCIDENT
from techdeck_tasks.alerts.record import AlertRecord
from techdeck_tasks.alerts.situation import Sources
from techdeck_tasks.alerts.state import Policy
from techdeck_tasks.audit import verify_run
from techdeck_tasks.audit.backlog import AuditBacklog, read_backlog
from techdeck_tasks.audit.checkpoint import Checkpointer
from techdeck_tasks.audit.compliance.schedule import make_due
from techdeck_tasks.audit.compliance.store import ReportKind, ReportStore
from techdeck_tasks.audit.custody import Custody
from techdeck_tasks.audit.drain import Drain
from techdeck_tasks.audit.event import AuditEvent, AuditTrail, EventType
from techdeck_tasks.audit.finding import VerifyReport
from techdeck_tasks.audit.incident_store import IncidentStore
from techdeck_tasks.audit.publisher import StreamPublisher
from techdeck_tasks.audit.reader import AuditReader
from techdeck_tasks.audit.rekeying import Resealed, reseal
from techdeck_tasks.audit.sealing import Opener, Sealer, blind_index
from techdeck_tasks.audit.sink import SegmentStore
from techdeck_tasks.audit.sink_export import SinkExporter
from techdeck_tasks.audit.spool import Spool
from techdeck_tasks.audit.statement import Signer
from techdeck_tasks.audit.stream import AuditStream
from techdeck_tasks.audit.verify import Progress, verify
from techdeck_tasks.audit.verify_run import Verification
from techdeck_tasks.audit.worker import drain_step
from techdeck_tasks.audit.writer import AuditWriter
from techdeck_tasks.celeryconfig import AUDIT_QUEUE, QUEUES, Role, celery_settings
from techdeck_tasks.clock import Clock, SystemClock
from techdeck_tasks.errors import ServiceUnavailableError, Severity
from techdeck_tasks.events import Listeners
from techdeck_tasks.handler import ErrorHandler
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PRIVATE_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    MESSAGE_KEYS,
    Cipher,
    FollowedKeys,
    KeyFolders,
    KeySet,
    RecipientAlgorithm,
)
from techdeck_tasks.metrics import ErrorMetricsCollector, MetricsRecorder, MetricsStore, RedisMetricsStore
from techdeck_tasks.metrics.exporter import parse_address, serve_beside
from techdeck_tasks.metrics.prometheus import PrometheusCollector
from techdeck_tasks.pipeline import tasks as pipeline_tasks
from techdeck_tasks.pipeline import upkeep as pipeline_upkeep
from techdeck_tasks.pipeline.artifacts import ArtifactStore
from techdeck_tasks.pipeline.control import RunControl
from techdeck_tasks.pipeline.execution import PipelineEngine
from techdeck_tasks.pipeline.operations import RunOperations
from techdeck_tasks.pipeline.registry import load_stages
from techdeck_tasks.pipeline.schedules import Schedules
from techdeck_tasks.pipeline.store import PipelineStore
from techdeck_tasks.pipeline.uploads import UploadLimits, UploadStore
from techdeck_tasks.redaction import RedactingFilter
from techdeck_tasks.resilience.backoff import RetryPolicy
from techdeck_tasks.resilience.breaker import BreakerRegistry
from techdeck_tasks.resilience.fallback import FallbackManager
from techdeck_tasks.resilience.recovery import RecoveryManager
from techdeck_tasks.resilience.resources import (
    DatabaseConnection,
    RecoveryResources,
    RedisCache,
    RedisConnection,
)
from techdeck_tasks.resilience.retry import RetryManager
from techdeck_tasks.resilience.statistics import RetryListener, RetryRegistry
from techdeck_tasks.settings import Settings, load_settings
from techdeck_tasks.storage.database import connect_database
from techdeck_tasks.storage.redis_client import connect_redis
from techdeck_tasks.tasks import upkeep
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.gauges import gauges
from techdeck_tasks.tasks.letters import LetterKind, LetterStore, RedisShelf
from techdeck_tasks.tasks.messaging import MaskingAMQP, register_serializer, take_plain_commands
from techdeck_tasks.tasks.quarantine import Quarantine
from techdeck_tasks.tasks.services import LogTrail, bind_services, bound_services
from techdeck_tasks.tasks.transitions import record_transitions

STREAM_SOCKET_TIMEOUT_S = 5.0
"""Longer than the audit worker's blocking read."""

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Runtime:
    """Everything a process can use, each part made when it is first needed.

    Making a runtime connects to nothing. After a fork the child's parts make connections of their own.

    Args:
        settings: what the process was told.
        clock: the time.
        rng: where jitter comes from.
    """

    keeps_eager_letters = False
    """Whether tasks in eager mode leave dead letters and wait for people, as those in a worker do."""

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        # The system's source: forked children must not draw the same jitter.
        self.rng: random.Random = rng or random.SystemRandom()
        self.listeners = Listeners()
        self.app: Celery | None = None
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _leave_connections_to_parent(this()))

    # -- keys --------------------------------------------------------------------------------------

    @property
    def key_folders(self) -> KeyFolders:
        """The key files, to make and rotate them."""
        return KeyFolders(
            producer=self.settings.keys_dir,
            reader=self.settings.reader_keys_dir,
            signer=self.settings.signing_keys_dir,
            wrapped_by=self.settings.key_wrapping,
            algorithm=RecipientAlgorithm(self.settings.audit_key_algorithm),
        )

    @cached_property
    def cipher(self) -> Cipher:
        """Seals messages, results and stored definitions."""
        return Cipher(FollowedKeys(self.settings.keys_dir / MESSAGE_KEYS))

    @cached_property
    def sealer(self) -> Sealer:
        """Seals audit events to the reader's public key."""
        keys = self.settings.keys_dir
        return Sealer(
            KeySet.load(keys / AUDIT_PUBLIC_KEYS),
            KeySet.load(keys / BLIND_INDEX_KEYS),
            self.settings.tenant,
        )

    # -- servers -----------------------------------------------------------------------------------

    @cached_property
    def redis(self) -> Redis:
        """Redis, each call bounded by `redis_timeout_seconds`."""
        return connect_redis(self.settings)

    @cached_property
    def stream_redis(self) -> Redis:
        """Redis for blocking reads."""
        patient = self.settings.model_copy(update={"redis_timeout_seconds": STREAM_SOCKET_TIMEOUT_S})
        return connect_redis(patient)

    @cached_property
    def engine(self) -> Engine:
        """PostgreSQL."""
        return connect_database(self.settings)

    # -- error core and audit ----------------------------------------------------------------------

    @cached_property
    def audit(self) -> StreamPublisher:
        """Where events are recorded."""
        policies = self.settings.audit_fail_policy
        return StreamPublisher(self.redis, self.sealer, self.spool, self.clock, policies)

    @cached_property
    def spool(self) -> Spool:
        """Where events wait while Redis is away."""
        return Spool(self.settings.audit_spool_dir, self.settings.audit_spool_max_bytes)

    @property
    def trail(self) -> AuditTrail:
        """What the error handler records to."""
        return self.audit

    @cached_property
    def handler(self) -> ErrorHandler:
        """The central error handler."""
        return ErrorHandler(
            audit=self.trail,
            listeners=self.listeners,
            clock=self.clock,
            retention_days=self.settings.error_log_retention_days,
            documentation_base_url=self.settings.documentation_base_url,
            recovery=self.recovery,
            on_pipeline_error=self._note_pipeline_error,
            clean_up_upload=lambda upload_id, _: self.uploads.cancel(upload_id),
            on_upload_failed=self.uploads.note_failure,
        )

    @cached_property
    def reports(self) -> ReportStore:
        """Compliance reports and their sign-off."""
        return ReportStore(
            self.engine,
            self.audit,
            self.clock,
            self.settings.error_log_retention_days,
            last_verify=self._last_verify,
        )

    def _last_verify(self) -> dict[str, Any] | None:
        last = self.last_verification()
        if last is None:
            return None
        return {
            "verified_at": last.finished_at.isoformat(),
            "ok": last.ok,
            "rows": last.rows,
            "findings": last.finding_count,
        }

    def make_due_reports(self) -> int:
        """Make the scheduled compliance reports whose period is over."""
        self.incidents.catch_up()
        kinds = [ReportKind(kind) for kind in sorted(self.settings.compliance_report_schedule)]
        return make_due(self.reports, kinds, self.clock.now())

    def project_incidents(self) -> int:
        """Enter the log's new security incidents into their table."""
        return self.incidents.catch_up()

    def audit_drain(self, node_name: str) -> Drain:
        """Return the loop that moves events from the stream into the log, for one audit worker."""
        writer = AuditWriter(self.engine, node_name, self.clock)
        return Drain(AuditStream(self.stream_redis, node_name), writer, self.settings.audit_batch_size)

    def audit_reader(self, reader: str) -> AuditReader:
        """Return the audit log as `reader` may see it: plaintext only where the private key is at hand."""
        path = self.settings.reader_keys_dir / AUDIT_PRIVATE_KEYS
        opener = Opener(KeySet.load(path)) if path.exists() else None
        indexes = self._blind_indexes if (self.settings.keys_dir / BLIND_INDEX_KEYS).exists() else None
        return AuditReader(self.engine, self.audit, opener, reader, indexes)

    def _blind_indexes(self, what: str, value: str) -> list[bytes]:
        # Under every key: older rows were indexed under older ones.
        keys = KeySet.load(self.settings.keys_dir / BLIND_INDEX_KEYS).keys.values()
        return [blind_index(key, self.settings.tenant, what, value) for key in keys]

    @cached_property
    def incidents(self) -> IncidentStore:
        """Security incidents and their investigation."""
        return IncidentStore(self.engine, self.audit, self.clock, self.settings.error_log_retention_days)

    def reseal_audit(self) -> Resealed:
        """Seal every data key of the audit log to the recipient that is active now."""
        opener = Opener(KeySet.load(self.settings.reader_keys_dir / AUDIT_PRIVATE_KEYS))
        return reseal(self.engine, opener, KeySet.load(self.settings.keys_dir / AUDIT_PUBLIC_KEYS))

    def verify_audit(
        self,
        *,
        since: datetime | None = None,
        sink_url: str | None = None,
        on_progress: Progress = lambda _done, _total: None,
    ) -> VerifyReport:
        """Recompute the audit log's chains, and compare them with what was signed.

        Args:
            since: begin at the last checkpoint made at or before; default: at the first row.
            sink_url: compare with this backup sink too.
            on_progress: told of the rows done and of those there are.
        """
        return verify(
            self.engine,
            keys=KeySet.load(self.settings.keys_dir / CHECKPOINT_PUBLIC_KEYS),
            since=since,
            sink=None if sink_url is None else SegmentStore(sink_url),
            processes=self.settings.audit_verify_processes,
            on_progress=on_progress,
        )

    def inspect_audit(self) -> Verification:
        """Verify the log with its sink, keep the result, and put findings on record as an incident."""
        started_at = self.clock.now()
        report = self.verify_audit(sink_url=self.settings.audit_sink_url)
        verification = Verification.of(report, started_at, self.clock.now())
        verify_run.keep(self.engine, verification)
        if not verification.ok:
            verify_run.raise_incident(self.audit, verification, self.settings.error_log_retention_days)
        return verification

    def last_verification(self) -> Verification | None:
        """Return the newest result of `inspect_audit`."""
        return verify_run.last(self.engine)

    def record_action(self, service: str, operation: str, owner: str, **facts: Any) -> None:
        """Put a person's action on record, before it is done.

        Raises:
            AuditUnavailableError: it cannot be recorded; the action must not be taken.
        """
        self.audit.record(
            AuditEvent(
                event_type=EventType.OPERATOR_ACTION,
                severity=Severity.MEDIUM,
                service=service,
                operation=operation,
                user_id=owner,
                retention_days=self.settings.error_log_retention_days,
                document={"message": f"{owner}: {operation}", "owner": owner, **facts},
            )
        )

    def keep_audit_up(self) -> None:
        """Make the coming partitions, send what waits in the spool, and forget dead audit workers."""
        AuditWriter(self.engine, "upkeep", self.clock).prepare_partitions()
        self.audit.flush()
        AuditStream(self.redis, "upkeep").forget_dead_consumers()

    def audit_backlog(self) -> AuditBacklog:
        """Measure what waits between the producers and PostgreSQL."""
        return read_backlog(self.redis, self.spool, self.clock.now())

    def audit_custody(self) -> Custody:
        """Return what signs the log's heads and copies it to the backup sink, for one audit worker."""
        settings = self.settings
        checkpointer = Checkpointer(
            self.engine,
            self.checkpoint_signer,
            self.clock,
            timedelta(seconds=settings.audit_checkpoint_interval_seconds),
            settings.audit_checkpoint_rows,
        )
        exporter = None
        if settings.audit_sink_url is not None:
            exporter = SinkExporter(self.engine, SegmentStore(settings.audit_sink_url), self.clock)
        return Custody(checkpointer, exporter, self.clock, settings.audit_sink_timeout_seconds)

    @cached_property
    def checkpoint_signer(self) -> Signer:
        """Signs checkpoints and tombstones; only audit workers have its key."""
        return Signer(KeySet.load(self.settings.signing_keys_dir / CHECKPOINT_PRIVATE_KEYS))

    # -- resilience --------------------------------------------------------------------------------

    @cached_property
    def breakers(self) -> BreakerRegistry:
        """Circuit breakers, shared through Redis."""
        return BreakerRegistry(self.redis, self.settings, clock=self.clock, listener=self.listeners)

    @cached_property
    def fallbacks(self) -> FallbackManager:
        """Fallbacks by operation name; the specification's four to begin with."""
        manager = FallbackManager(self.settings)
        manager.create_default_fallbacks()
        return manager

    @cached_property
    def recovery(self) -> RecoveryManager:
        """What may make the next attempt succeed: connections are reset, caches cleared."""
        resources = RecoveryResources(
            connections={"redis": RedisConnection(self.redis), "postgresql": DatabaseConnection(self.engine)},
            cache=RedisCache(self.redis),
        )
        return RecoveryManager(self.settings, resources, clock=self.clock, discover=True)

    @cached_property
    def retry_registry(self) -> RetryRegistry:
        """How often operations and tasks were retried, over all processes."""
        return RetryRegistry(self.redis, clock=self.clock)

    def flush(self) -> None:
        """Tell what this process still keeps: successes, retries, metrics, events. For shutdown."""
        self.breakers.flush()
        self.retry_registry.flush()
        self.metrics_recorder.flush()
        self.flush_audit()

    def flush_audit(self) -> None:
        """Send what this process's events still wait for. For shutdown."""
        if "audit" in self.__dict__:
            self.audit.flush()

    @cached_property
    def retries(self) -> RetryManager:
        """Retries for plain callables, outside Celery."""
        return RetryManager(
            self.settings,
            self.breakers,
            self.retry_registry,
            clock=self.clock,
            listener=self.listeners,
        )

    @cached_property
    def dead_letters(self) -> LetterStore:
        """Tasks that failed for good."""
        return LetterStore(RedisShelf(self.redis, LetterKind.DEAD), self.cipher, self.clock)

    @cached_property
    def interventions(self) -> LetterStore:
        """Tasks that wait for a person."""
        return LetterStore(RedisShelf(self.redis, LetterKind.INTERVENTION), self.cipher, self.clock)

    def record_breakers(self) -> int:
        """Put the breakers' transitions since the last call on record."""
        days = self.settings.error_log_retention_days
        return record_transitions(self.breakers, self.audit, self.redis, days)

    # -- metrics -----------------------------------------------------------------------------------

    @cached_property
    def metrics_store(self) -> MetricsStore:
        """The counters of all processes, in Redis."""
        return RedisMetricsStore(self.redis, timedelta(hours=self.settings.metrics_retention_hours))

    @cached_property
    def metrics_recorder(self) -> MetricsRecorder:
        """Counts what happens in this process."""
        return MetricsRecorder(lambda: self.metrics_store)

    @cached_property
    def metrics(self) -> ErrorMetricsCollector:
        """Error statistics, trends and alert conditions."""
        return ErrorMetricsCollector(self.metrics_store, self.metrics_recorder, self.settings, self.clock)

    @cached_property
    def prometheus(self) -> PrometheusCollector:
        """What Prometheus is told: the counters of all processes, and what waits."""
        return PrometheusCollector(
            self.metrics.totals,
            gauges(
                redis=self.redis,
                breakers=self.breakers,
                dead_letters=self.dead_letters,
                interventions=self.interventions,
                quarantine=self.quarantine,
                spool_dir=self.settings.audit_spool_dir,
                app=self.app,
                queues=QUEUES,
            ),
        )

    # -- alerts ------------------------------------------------------------------------------------

    @cached_property
    def alerts(self) -> AlertStore:
        """Alerts and silences, as operators see and change them."""
        return AlertStore(self.engine, self._alert_record, self.clock)

    @cached_property
    def alert_channels(self) -> Channels:
        """Who is told of alerts."""
        settings = self.settings
        return open_channels(
            settings.alert_channels,
            settings.alert_escalation_channels,
            settings.alert_channel_timeout_seconds,
        )

    @cached_property
    def alert_evaluator(self) -> AlertEvaluator:
        """Finds out what is wrong, and tells people."""
        settings = self.settings
        return AlertEvaluator(
            engine=self.engine,
            conditions=load_conditions(),
            sources=self._alert_sources(),
            channels=self.alert_channels,
            policy=Policy(
                fire_after=settings.alert_fire_after_evaluations,
                resolve_after=settings.alert_resolve_after_evaluations,
                repeat_after=timedelta(hours=settings.alert_repeat_hours),
                escalate_after=timedelta(minutes=settings.alert_escalate_after_minutes),
            ),
            record=self._alert_record,
            clock=self.clock,
            tenant=settings.tenant,
            on_delivered=self._note_notified,
        )

    def evaluate_alerts(self) -> None:
        """Evaluate once, unless another beat's message just did."""
        self.alert_evaluator.evaluate()

    @cached_property
    def _alert_record(self) -> AlertRecord:
        return AlertRecord(self.audit, self.settings.error_log_retention_days)

    def _alert_sources(self) -> Sources:
        return {
            "error_conditions": lambda: tuple(self.metrics.get_alert_conditions()),
            "breakers": self._breaker_states,
            "backlog": self._measured_backlog,
            "verification": self.last_verification,
            "watched_since": self.alerts.watched_since,
            "unnotified_incidents": lambda: tuple(self.incidents.unnotified()),
            "due_incidents": lambda: tuple(self.incidents.due_within(DEADLINE_NEAR)),
            "dead_letters": self.dead_letters.count,
            "interventions": self.interventions.count,
            "quarantined_messages": self.quarantine.count,
        }

    def _breaker_states(self) -> dict[str, str]:
        # Without Redis the registry tells of this process alone, where every breaker may be closed.
        self.redis.ping()
        return {name: status["state"] for name, status in self.breakers.get_status().items()}

    def _measured_backlog(self) -> AuditBacklog:
        backlog = self.audit_backlog()
        if not backlog.redis_reachable:
            raise ServiceUnavailableError("Redis does not answer", service_name="redis")
        return backlog

    def _note_notified(self, alert_type: str, items: Iterable[str], channel: str) -> None:
        if alert_type == SECURITY_INCIDENT:
            for incident_id in items:
                self.incidents.mark_notified(incident_id, channel)

    # -- tasks and pipelines -----------------------------------------------------------------------

    @cached_property
    def retry_policy(self) -> RetryPolicy:
        """The policy of tasks that declare none."""
        return RetryPolicy.from_settings(self.settings)

    @cached_property
    def quarantine(self) -> Quarantine:
        """Where messages that no worker can read are kept."""
        return Quarantine(self.redis, self.cipher, self.clock)

    @cached_property
    def pipeline_store(self) -> PipelineStore:
        """The state of runs."""
        return PipelineStore(self.engine, self.cipher, self.clock, self._stage_lease)

    @property
    def _stage_lease(self) -> timedelta:
        return timedelta(seconds=self.settings.stage_lease_seconds)

    @cached_property
    def uploads(self) -> UploadStore:
        """Files on their way in."""
        limits = UploadLimits(max_bytes=self.settings.upload_max_bytes)
        return UploadStore(self.settings.upload_dir, limits, self.clock)

    def _note_pipeline_error(self, run_id: str, response: Mapping[str, Any]) -> None:
        self.pipeline_store.note_error(
            run_id, response["error_id"], response["error_code"], response["message"]
        )

    @cached_property
    def pipeline(self) -> PipelineEngine:
        """Runs pipelines."""
        assert self.app is not None, "pipelines are dispatched through an app: use create_app() or install()"
        return PipelineEngine(
            self.pipeline_store,
            self.artifacts,
            pipeline_tasks.CeleryDispatcher(self.app),
            self.clock,
            timedelta(seconds=self.settings.task_time_limit_seconds),
        )

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The data handed from stage to stage."""
        return ArtifactStore(self.settings.artifact_url, self.cipher)

    @cached_property
    def runs(self) -> RunOperations:
        """Cancels, resumes and looks after runs."""
        return RunOperations(
            engine=self.pipeline,
            control=RunControl(self.engine, self.clock, self._stage_lease),
            artifacts=self.artifacts,
            handler=self.handler,
            trail=self.trail,
            clock=self.clock,
            max_retries=self.settings.default_max_retries,
            artifact_retention=timedelta(hours=self.settings.artifact_retention_hours),
            audit_retention_days=self.settings.error_log_retention_days,
        )

    @cached_property
    def schedules(self) -> Schedules:
        """Pipelines that beat starts."""
        return Schedules(self.engine, self.cipher, self.clock, self.pipeline)


def _leave_connections_to_parent(runtime: Runtime | None) -> None:
    if runtime is not None and "engine" in runtime.__dict__:
        runtime.engine.dispose(close=False)


def _flush(runtime: Runtime | None) -> None:
    if runtime is not None:
        runtime.flush()


def runtime_of(app: Celery) -> Runtime:
    """Return the runtime that `create_app` or `install` gave `app`."""
    runtime = bound_services(app)
    if not isinstance(runtime, Runtime):
        raise RuntimeError(f"Celery application {app.main!r} has no runtime; call install(app)")  # noqa: TRY004
    return runtime


def install(app: Celery, settings: Settings | None = None) -> Runtime:
    """Make an application's own Celery app a techdeck app: settings, encrypted messages, services.

    Call it before the app's first task is sent or worker started. Tasks whose base is `TechDeckTask` (the
    default from now on) find everything they need.
    """
    settings = settings or load_settings()
    runtime = Runtime(settings)
    app.task_cls = TechDeckTask
    app.amqp_cls = MaskingAMQP
    register_serializer(lambda: runtime.cipher)
    app.conf.update(celery_settings(settings))
    bind(app, runtime)
    this = weakref.ref(runtime)
    for ending in (signals.worker_process_shutdown, signals.worker_shutdown):
        ending.connect(lambda **_: _flush(this()), weak=False)
    take_plain_commands(app)
    return runtime


def bind(app: Celery, runtime: Runtime) -> None:
    """Let the tasks of `app` use `runtime` from now on."""
    runtime.app = app
    runtime.listeners.add(RetryListener(lambda: runtime.retry_registry))
    runtime.listeners.add(runtime.metrics_recorder)
    bind_services(app, runtime)


def create_app(settings: Settings | None = None, role: Role = Role.CLIENT) -> Celery:
    """Return a Celery app for one role of the service.

    Args:
        settings: default: those of the environment.
        role: a pipeline worker, an audit worker, beat, or a client that enqueues.

    Raises:
        SettingsError: a setting is malformed.
        ValidationError: so is a worker's or beat's `metrics_address`, or an audit worker's alert channel.
    """
    app = Celery("techdeck")
    runtime = install(app, settings)
    if role is Role.AUDIT:
        runtime.alert_channels.check()
        upkeep.register(
            app,
            upkeep=runtime.keep_audit_up,
            verify=runtime.inspect_audit,
            record_breakers=runtime.record_breakers,
            project_incidents=runtime.project_incidents,
            make_due_reports=runtime.make_due_reports,
            evaluate_alerts=runtime.evaluate_alerts,
        )
        app.steps["worker"].add(drain_step(runtime.audit_drain, runtime.audit_custody))
        app.conf.task_default_queue = AUDIT_QUEUE
    else:
        load_stages()
        pipeline_tasks.register(app)
    if role is Role.PIPELINE:
        pipeline_upkeep.register(
            app,
            redis=lambda: runtime.redis,
            clock=runtime.clock,
            reconcile=lambda: runtime.runs.reconcile(),  # noqa: PLW0108 - made when it is first needed
            start_due=lambda: runtime.schedules.start_due(),  # noqa: PLW0108 - as above
            collect=lambda: runtime.runs.collect(),  # noqa: PLW0108 - as above
        )
    if role in (Role.PIPELINE, Role.AUDIT, Role.BEAT):
        signals.setup_logging.connect(lambda **_: configure_logging(runtime.settings), weak=False)
        _serve_metrics(runtime)
    return app


def _serve_metrics(runtime: Runtime) -> None:
    address = runtime.settings.metrics_address
    if address is not None:
        parse_address(address)
        for ready in (signals.worker_ready, signals.beat_init):
            ready.connect(lambda **_: serve_beside(runtime.prometheus, address), weak=False)


def _pipeline_execute() -> Any:
    app = current_app._get_current_object()  # noqa: SLF001 - the proxy's only way to the app itself
    if pipeline_tasks.EXECUTE not in app.tasks:
        app = create_app()
    return app.tasks[pipeline_tasks.EXECUTE]


pipeline_execute: Any = Proxy(_pipeline_execute)
"""The task that starts a pipeline, of the current techdeck app, or of one made from the environment::

    result = pipeline_execute.delay({"name": ..., "source": ..., "stages": [...]}, idempotency_key=None)
    result.id  # the run's id
"""


def configure_logging(settings: Settings) -> None:
    """Send the process's log to standard error, redacted."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    # On the handler, not on a logger: filters of loggers do not see what their children log.
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)


def default_services(app: Celery) -> Runtime:
    """Serve an application that uses `TechDeckTask` and never called `install`: its own settings stay."""
    settings = load_settings()
    has_keys = (settings.keys_dir / AUDIT_PUBLIC_KEYS).exists()
    runtime = Runtime(settings) if has_keys else _KeylessRuntime(settings)
    runtime.app = app
    return runtime


class _KeylessRuntime(Runtime):
    """A runtime whose errors go to the log alone: without keys nothing can be sealed."""

    @property
    def trail(self) -> AuditTrail:
        """The log."""
        return LogTrail()
