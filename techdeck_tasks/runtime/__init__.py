"""The composition root: the one place that reads settings and constructs clients.

A `Runtime` is built up in layers, each of which uses those before it::

    connections   settings, the time, keys, Redis, PostgreSQL
    resilience    breakers, retries, fallbacks, recovery, letters
    auditing      the audit log, its incidents and reports
    monitoring    metrics and alerts
    pipelines     runs, schedules, uploads, and the error handler

`app` gives it to a Celery application.
"""

from __future__ import annotations

from techdeck_tasks.runtime.app import (
    bind,
    configure_logging,
    create_app,
    default_services,
    import_own_modules,
    install,
    pipeline_execute,
    runtime_of,
)
from techdeck_tasks.runtime.runtime import Runtime

__all__ = [
    "Runtime",
    "bind",
    "configure_logging",
    "create_app",
    "default_services",
    "import_own_modules",
    "install",
    "pipeline_execute",
    "runtime_of",
]
