"""Every Celery setting of a techdeck application, and why it is what it is.

Redis as a broker delivers neither exactly nor always at least once; these settings come as near as it can,
and the pipeline's state in PostgreSQL does the rest.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

from celery.app.backends import BACKEND_ALIASES, by_name
from celery.exceptions import ImproperlyConfigured
from kombu.entity import Queue
from kombu.transport import TRANSPORT_ALIASES, resolve_transport

from techdeck_tasks.settings import ENV_PREFIX, Settings, SettingsError
from techdeck_tasks.tasks.messaging import SERIALIZER

PIPELINE_QUEUE = "pipeline"
AUDIT_QUEUE = "audit"
QUEUES = (PIPELINE_QUEUE, AUDIT_QUEUE)


class Role(StrEnum):
    """What a process of the service does."""

    PIPELINE = "pipeline"
    AUDIT = "audit"
    BEAT = "beat"
    CLIENT = "client"
    """Enqueues and reads; runs nothing."""


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration for `settings`.

    Raises:
        SettingsError: the broker's or the result store's URL has a scheme that nothing installed speaks.
    """
    _check_schemes(settings)
    return {
        **_servers(settings),
        **_confidentiality(),
        **_reliability(settings),
        **_worker(settings),
        **_schedule(),
    }


_ANSWER_S = 1.5
_BRIEF = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}
"""How long a client waits for one answer of Redis, and how often it asks again: `.delay()` on a Redis that
hangs ends after four answers that did not come, 7 s."""


def _check_schemes(settings: Settings) -> None:
    """Refuse what Celery would raise a KeyError or an ImportError for, at the first message or result."""
    for broker in settings.effective_broker_url.get_secret_value().split(";"):
        scheme = broker.partition("://")[0].partition("+")[0]
        if scheme not in TRANSPORT_ALIASES:
            try:
                resolve_transport(scheme)
            except (KeyError, ImportError, AttributeError, ValueError):
                raise _unspoken("BROKER_URL", scheme, "redis, sentinel or amqp") from None
    store = settings.effective_result_backend_url.get_secret_value()
    scheme = store.partition("://")[0].partition("+")[0]
    if scheme not in BACKEND_ALIASES:
        try:
            by_name(scheme)
        except (ImproperlyConfigured, ImportError, AttributeError, ValueError):
            raise _unspoken("RESULT_BACKEND_URL", scheme, "redis or sentinel") from None


def _unspoken(name: str, scheme: str, known: str) -> SettingsError:
    return SettingsError(f"{ENV_PREFIX}{name}: nothing that is installed speaks {scheme!r}; use {known}")


def _servers(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.effective_broker_url.get_secret_value(),
        "result_backend": settings.effective_result_backend_url.get_secret_value(),
        "broker_transport_options": {
            # Longer than any run or countdown, or Redis gives the task to a second worker meanwhile.
            "visibility_timeout": settings.visibility_timeout_seconds,
            # Without these a Redis that hangs hangs `.delay()`. Workers read with more patience.
            "socket_timeout": _ANSWER_S,
            "socket_connect_timeout": _ANSWER_S,
            "socket_keepalive": True,
            "health_check_interval": 25,
            # Unacknowledged messages of a lost worker are looked for at every poll, not at every tenth.
            "unacked_restore_throttle": 1,
        },
        "redis_socket_timeout": _ANSWER_S,
        "redis_socket_connect_timeout": _ANSWER_S,
        # A worker waits for its broker for ever, also when it starts before it.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 5,
        # `.delay()` answers within seconds when the broker is away, or the result store it subscribes to.
        "task_publish_retry_policy": _BRIEF,
        "result_backend_transport_options": {"retry_policy": _BRIEF},
        # A result written during an outage must not turn a success into a failure.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 20,
        # Results are answers, not records: the state of runs is in PostgreSQL.
        "result_expires": 3600,
    }


def _confidentiality() -> dict[str, Any]:
    return {
        # Encrypted only: plain JSON and pickle are refused, and quarantined.
        "task_serializer": SERIALIZER,
        "result_serializer": SERIALIZER,
        "accept_content": [SERIALIZER],
        "result_accept_content": [SERIALIZER],
        # Monitors hold no key; what they are sent is masked instead.
        "event_serializer": "json",
        # Extended results would add the arguments.
        "result_extended": False,
        "task_protocol": 2,
    }


def _reliability(settings: Settings) -> dict[str, Any]:
    return {
        # A message is gone only when its task has ended.
        "task_acks_late": True,
        # A killed child is retried by count; where that cannot be published, its message goes back.
        "task_retry_on_worker_lost": True,
        "task_reject_on_worker_lost": True,
        # What failed was audited and is not run again by redelivery.
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_time_limit": settings.task_time_limit_seconds,
        "task_soft_time_limit": settings.task_soft_time_limit_seconds,
        "task_track_started": True,
        # A mistyped queue name must fail and not wait unread.
        "task_create_missing_queues": False,
        "task_queues": [Queue(name) for name in QUEUES],
        "task_default_queue": PIPELINE_QUEUE,
        # Eager retries and chains keep their meaning only so.
        "task_eager_propagates": False,
    }


def _worker(settings: Settings) -> dict[str, Any]:
    return {
        # No worker holds messages that another could be working on.
        "worker_prefetch_multiplier": 1,
        # Of processes, unless the command line names another kind.
        "worker_pool": "techdeck_tasks.tasks.pool:TaskPool",
        "worker_consumer": "techdeck_tasks.tasks.consumer:QuarantiningConsumer",
        # True would revoke and lose running work whenever the connection blinks.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # SIGTERM: finish within this time, then give unfinished messages back.
        "worker_soft_shutdown_timeout": settings.soft_shutdown_timeout_seconds,
        # Countdowns are held in memory; the rest waits with the broker.
        "worker_eta_task_limit": 1000,
        # Children are replaced before leaks matter. It takes 0.25 s: of a child that does nothing but no-ops,
        # 450 a second, a twentieth; of one whose tasks take 0.1 s, a thousandth.
        "worker_max_tasks_per_child": 2000,
        # Logging is configured by the process, with redaction, and not taken over.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        # Monitors show task states and run times; arguments are masked.
        "task_send_sent_event": True,
        # repr() of results goes into events and logs: none of it. Celery has no setting for it.
        "task_annotations": {"*": {"resultrepr_maxsize": 0}},
        "enable_utc": True,
        "timezone": "UTC",
    }


def _schedule() -> dict[str, Any]:
    # Names and periods are those of tasks/upkeep.py and pipeline/upkeep.py: where two beats run, the second
    # message of a period finds its slot taken.
    second, minute, hour, day = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
    return {
        "beat_schedule": {
            "audit-upkeep": _every(minute, "techdeck.audit.upkeep", AUDIT_QUEUE),
            "audit-breakers": _every(15 * second, "techdeck.audit.breakers", AUDIT_QUEUE),
            "audit-incidents": _every(minute, "techdeck.audit.incidents", AUDIT_QUEUE),
            "alerts": _every(minute, "techdeck.alerts.evaluate", AUDIT_QUEUE),
            # Each hour and not at the end of a period: what a stopped service missed is made when it is back.
            "audit-reports": _every(hour, "techdeck.audit.reports", AUDIT_QUEUE),
            "audit-verify": _every(day, "techdeck.audit.verify", AUDIT_QUEUE),
            "audit-prune": _every(day, "techdeck.audit.prune", AUDIT_QUEUE),
            "pipeline-reconcile": _every(15 * second, "techdeck.pipeline.reconcile", PIPELINE_QUEUE),
            "pipeline-start-due": _every(15 * second, "techdeck.pipeline.start_due", PIPELINE_QUEUE),
            "pipeline-collect": _every(hour, "techdeck.pipeline.collect", PIPELINE_QUEUE),
        },
    }


def _every(period: timedelta, task: str, queue: str) -> dict[str, Any]:
    # A message that waits for longer is overtaken by the next one.
    options = {"queue": queue, "expires": period.total_seconds()}
    return {"task": task, "schedule": period, "options": options}
