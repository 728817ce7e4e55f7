"""Celery, Kombu, py-amqp and billiard."""

from __future__ import annotations

from techdeck_tasks.errors.base import RetryRule
from techdeck_tasks.errors.mappings.http_clients import of_own_status
from techdeck_tasks.errors.verdict import CONFIGURATION, DEFECT, MISUSE, Target, Verdict, internal, otherwise

_CONTROL_FLOW = internal("control flow of Celery; never handled as an error")
_REVOKED = internal("an operator ended the task; trying again would undo that", RetryRule.NEVER)
_NAMELESS = internal("a stand-in that kept nothing of its original")
_TERMINATED = Verdict("WORKER_LOST", retry_rule=RetryRule.NEVER)
"""The child was ended by `revoke(terminate=True)`: somebody wanted that."""


def of_stand_in(error: BaseException) -> BaseException | None:
    """Judge what could not be pickled by the name its stand-in kept."""
    module, name = getattr(error, "exc_module", None), getattr(error, "exc_cls_name", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    original: BaseException = type(name, (Exception,), {"__module__": module})(
        *getattr(error, "exc_args", ())
    )
    return original


MAPPINGS: dict[str, Target] = {
    # -- Celery ------------------------------------------------------------------------------------
    "celery.exceptions.CeleryError": internal("an error of Celery without a class of its own"),
    "celery.exceptions.TaskPredicate": _CONTROL_FLOW,
    "celery.exceptions.BackendError": "SERVICE_UNAVAILABLE",
    "celery.exceptions.CeleryCommandException": CONFIGURATION,
    "celery.exceptions.ChordError": "PIPELINE_ERROR",
    "celery.exceptions.ImproperlyConfigured": CONFIGURATION,
    "celery.exceptions.AlreadyRegistered": CONFIGURATION,
    "celery.exceptions.NotRegistered": CONFIGURATION,
    "celery.exceptions.QueueNotFound": CONFIGURATION,
    "celery.exceptions.InvalidTaskError": MISUSE,
    "celery.exceptions.IncompleteStream": "CONNECTION_ERROR",
    "celery.exceptions.MaxRetriesExceededError": "RETRY_EXHAUSTED",
    "celery.exceptions.SecurityError": "ENCRYPTION_ERROR",
    "celery.exceptions.TaskError": internal("an error of Celery without a class of its own"),
    "celery.exceptions.TaskRevokedError": _REVOKED,
    "celery.exceptions.TimeoutError": "TIMEOUT_ERROR",
    "celery.exceptions.WorkerShutdown": _CONTROL_FLOW,
    "celery.exceptions.WorkerTerminate": _CONTROL_FLOW,
    "celery.platforms.LockFailed": CONFIGURATION,
    "celery.utils.imports.NotAPackage": CONFIGURATION,
    "celery.schedules.ParseException": CONFIGURATION,
    "celery.utils.graph.CycleError": CONFIGURATION,
    "celery.beat.SchedulingError": "SERVICE_UNAVAILABLE",
    "celery.utils.serialization.UnpickleableExceptionWrapper": otherwise(of_stand_in, _NAMELESS),
    # -- billiard ----------------------------------------------------------------------------------
    "billiard.exceptions.CoroStop": DEFECT,
    "billiard.exceptions.RestartFreqExceeded": "WORKER_LOST",
    "billiard.exceptions.SoftTimeLimitExceeded": "TIMEOUT_ERROR",
    "billiard.exceptions.Terminated": _TERMINATED,
    "billiard.exceptions.TimeLimitExceeded": "WORKER_LOST",
    "billiard.exceptions.WorkerLostError": "WORKER_LOST",
    "billiard.einfo.ExceptionWithTraceback": DEFECT,
    "billiard.einfo.RemoteTraceback": DEFECT,
    "billiard.pool.MaybeEncodingError": MISUSE,
    "billiard.pool.WorkersJoined": "WORKER_LOST",
    # -- Kombu -------------------------------------------------------------------------------------
    "kombu.exceptions.KombuError": internal("an error of Kombu without a class of its own"),
    "kombu.exceptions.OperationalError": "CONNECTION_ERROR",
    "kombu.exceptions.BatchPublishError": "CONNECTION_ERROR",
    "kombu.exceptions.LimitExceeded": "SERVICE_UNAVAILABLE",
    "kombu.exceptions.HttpError": otherwise(of_own_status, MISUSE),
    "kombu.exceptions.MessageStateError": DEFECT,
    "kombu.exceptions.NotBoundError": DEFECT,
    "kombu.exceptions.SerializationError": MISUSE,
    "kombu.exceptions.SerializerNotInstalled": CONFIGURATION,
    "kombu.exceptions.ContentDisallowed": MISUSE,
    "kombu.exceptions.VersionMismatch": CONFIGURATION,
    "kombu.asynchronous.hub.Stop": DEFECT,
    "kombu.matcher.MatcherNotInstalled": CONFIGURATION,
    "kombu.transport.redis.MutexHeld": "SERVICE_UNAVAILABLE",
    "kombu.transport.virtual.base.NotEquivalentError": CONFIGURATION,
    # -- py-amqp -----------------------------------------------------------------------------------
    "amqp.exceptions.AMQPError": internal("an error of the broker without a class of its own"),
    "amqp.exceptions.ConnectionError": "CONNECTION_ERROR",
    "amqp.exceptions.IrrecoverableConnectionError": MISUSE,
    "amqp.exceptions.ResourceError": "SERVICE_UNAVAILABLE",
    "amqp.exceptions.NotAllowed": "AUTHZ_ERROR",
    "amqp.exceptions.ChannelError": MISUSE,
    "amqp.exceptions.RecoverableChannelError": "SERVICE_UNAVAILABLE",
    "amqp.exceptions.ContentTooLarge": MISUSE,
    "amqp.exceptions.AccessRefused": "AUTHZ_ERROR",
    "amqp.exceptions.MessageNacked": "SERVICE_UNAVAILABLE",
}
