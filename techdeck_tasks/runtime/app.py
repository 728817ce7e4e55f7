"""Celery applications of the service, and applications that are made part of it."""

from __future__ import annotations

import logging
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from celery import Celery, current_app, signals
from celery.local import Proxy
from celery.utils.imports import import_from_cwd
from kombu.entity import Queue

from techdeck_tasks.audit.writing.worker import drain_step
from techdeck_tasks.celeryconfig import AUDIT_QUEUE, Role, celery_settings
from techdeck_tasks.keyring import AUDIT_PUBLIC_KEYS
from techdeck_tasks.metrics.exporter import parse_address, serve_beside
from techdeck_tasks.pipeline import tasks as pipeline_tasks
from techdeck_tasks.pipeline import upkeep as pipeline_upkeep
from techdeck_tasks.pipeline.registry import load_stages
from techdeck_tasks.redaction import RedactingFilter
from techdeck_tasks.resilience.statistics import RetryListener
from techdeck_tasks.runtime.runtime import KeylessRuntime, Runtime
from techdeck_tasks.settings import Settings, SettingsError, load_settings
from techdeck_tasks.tasks import upkeep
from techdeck_tasks.tasks.base import TechDeckTask
from techdeck_tasks.tasks.messaging import MaskingAMQP, register_serializer, take_plain_commands
from techdeck_tasks.tasks.results import bind_results
from techdeck_tasks.tasks.services import bind_services, bound_services
from techdeck_tasks.tasks.turns import note_beat

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def _flush(runtime: Runtime | None) -> None:
    if runtime is not None:
        runtime.flush()


def runtime_of(app: Celery) -> Runtime:
    """Return the runtime that `create_app` or `install` gave `app`."""
    runtime = bound_services(app)
    if not isinstance(runtime, Runtime):
        raise RuntimeError(f"Celery application {app.main!r} has no runtime; call install(app)")  # noqa: TRY004
    return runtime


def install(app: Celery, settings: Settings | None = None, *, queue: str | None = None) -> Runtime:
    """Make an application's own Celery app a techdeck app: settings, encrypted messages, services.

    Call it before the app's first task is sent or worker started. Tasks whose base is `TechDeckTask` (the
    default from now on) find everything they need.

    Args:
        app: the application.
        settings: default: those of the environment.
        queue: where its tasks wait, and what its workers read; default: the queues of the service. The
            service's own workers quarantine a task that they do not know, so name one where both run.
    """
    settings = settings or load_settings()
    runtime = Runtime(settings)
    app.task_cls = TechDeckTask
    app.amqp_cls = MaskingAMQP
    register_serializer(lambda: runtime.cipher)
    app.conf.update(celery_settings(settings))
    if queue is not None:
        app.conf.update(task_default_queue=queue, task_queues=[Queue(queue)])
    bind_results(app)
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
        SettingsError: a setting is malformed, or a module of `imports` cannot be imported.
        ValidationError: so is a worker's or beat's `metrics_address`, or an audit worker's alert channel.
    """
    settings = settings or load_settings()
    import_own_modules(settings)
    app = Celery("techdeck")
    runtime = install(app, settings)
    if role is Role.AUDIT:
        runtime.alert_channels.check()
        upkeep.register(
            app,
            redis=lambda: runtime.redis,
            clock=runtime.clock,
            upkeep=runtime.keep_audit_up,
            verify=runtime.inspect_audit,
            record_breakers=runtime.record_breakers,
            project_incidents=runtime.project_incidents,
            make_due_reports=runtime.make_due_reports,
            prune=runtime.prune_audit,
            evaluate_alerts=runtime.evaluate_alerts,
        )
        app.steps["worker"].add(drain_step(runtime.audit_drain, runtime.audit_custody))
        app.conf.task_default_queue = AUDIT_QUEUE
    else:
        load_stages()
        pipeline_tasks.register(app)
    if role is Role.PIPELINE:
        # What `validation` and `bias_detection` need: before a worker forks, so that no child spends half a
        # second on each, nor memory of its own. Celery does so where a worker starts, and not for a client's
        # sake. fairlearn is an optional extra.
        fairlearn = ("fairlearn.metrics",) if find_spec("fairlearn") is not None else ()
        app.conf.imports = ("pandera.backends.polars.builtin_checks", *fairlearn)
        pipeline_upkeep.register(
            app,
            redis=lambda: runtime.redis,
            clock=runtime.clock,
            reconcile=lambda: runtime.runs.reconcile(),  # noqa: PLW0108 - made when it is first needed
            start_due=lambda: runtime.schedules.start_due(),  # noqa: PLW0108 - as above
            collect=runtime.collect,
        )
    if role is Role.BEAT:
        signals.beat_init.connect(lambda **_: note_beat(lambda: runtime.redis, runtime.clock), weak=False)
    if role in (Role.PIPELINE, Role.AUDIT, Role.BEAT):
        signals.setup_logging.connect(lambda **_: configure_logging(runtime.settings), weak=False)
        _serve_metrics(runtime)
    return app


def import_own_modules(settings: Settings) -> None:
    """Import the modules that register stages and alert conditions; they may lie in the working directory.

    Raises:
        SettingsError: one cannot be imported; the text tells which, and why.
    """
    for name in settings.imports:
        try:
            import_from_cwd(name)
        except Exception as error:
            raise SettingsError(
                f"TECHDECK_IMPORTS: {name!r} cannot be imported from {Path.cwd()} "
                f"({type(error).__name__}: {error})"
            ) from error


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
    runtime = Runtime(settings) if has_keys else KeylessRuntime(settings)
    runtime.app = app
    return runtime
