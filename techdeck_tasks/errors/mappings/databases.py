"""PostgreSQL through psycopg and SQLAlchemy, judged by SQLSTATE; and Redis."""

from __future__ import annotations

from techdeck_tasks.errors.base import RetryRule
from techdeck_tasks.errors.verdict import DEFECT, MISUSE, Target, Verdict, internal, otherwise

_STATEMENT = internal(
    "a wrong statement or a missing object: the same statement fails again", RetryRule.NEVER
)
_SERVER_DEFECT = internal("PostgreSQL reports a defect or damaged data of its own", RetryRule.NEVER)
_CLIENT = internal("an error of the client library; no server said anything")
_IN_FAILED_TRANSACTION = internal(
    "the transaction had failed before; what came first is the error", RetryRule.NEVER
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html; five characters win over two.
_VERDICT_OF_SQLSTATE: dict[str, str | Verdict] = {
    "00": _STATEMENT,
    "01": _STATEMENT,
    "02": _STATEMENT,
    "03": _STATEMENT,
    "08": "CONNECTION_ERROR",
    "08004": "SERVICE_UNAVAILABLE",
    "08P01": "CONNECTION_ERROR",
    "0A": _STATEMENT,
    "0L": "AUTHZ_ERROR",
    "0P": "AUTHZ_ERROR",
    "21": "DATA_PROCESSING_ERROR",
    "22": "DATA_PROCESSING_ERROR",
    "23": "VALIDATION_ERROR",
    "24": _STATEMENT,
    "25": _STATEMENT,
    "25006": "SERVICE_UNAVAILABLE",  # read-only: the writer moved to another host
    "25P02": _IN_FAILED_TRANSACTION,
    "25P03": "TIMEOUT_ERROR",
    "25P04": "TIMEOUT_ERROR",
    "28": "AUTH_ERROR",
    "40": "SERVICE_UNAVAILABLE",
    "40002": "VALIDATION_ERROR",
    "42": _STATEMENT,
    "42501": "AUTHZ_ERROR",
    "44": "VALIDATION_ERROR",
    "53": "SERVICE_UNAVAILABLE",
    "54": _STATEMENT,
    "55": _STATEMENT,
    "55006": "SERVICE_UNAVAILABLE",
    "55P03": "SERVICE_UNAVAILABLE",
    "57": "SERVICE_UNAVAILABLE",
    "57014": "TIMEOUT_ERROR",  # statement_timeout and a cancel both say so
    "57P04": _STATEMENT,
    "57P05": "TIMEOUT_ERROR",
    "58": _SERVER_DEFECT,
    "58030": "SERVICE_UNAVAILABLE",
    "72": "SERVICE_UNAVAILABLE",
    "F0": _SERVER_DEFECT,
    "HV": "SERVICE_UNAVAILABLE",
    "P0": "DATA_PROCESSING_ERROR",
    "P0004": _STATEMENT,
    "XX": _SERVER_DEFECT,
}

_REFUSED_AT_LOGIN = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
    "is not permitted to log in",
)
_UNTIL_A_PERSON_MENDS_IT = Verdict("CONNECTION_ERROR", retry_rule=RetryRule.NEVER)


def verdict_of_sqlstate(sqlstate: str) -> Verdict | str:
    """Judge a SQLSTATE, by its five characters, then by its class."""
    return _VERDICT_OF_SQLSTATE.get(sqlstate) or _VERDICT_OF_SQLSTATE.get(sqlstate[:2], _STATEMENT)


def of_sqlstate(error: BaseException) -> Verdict | str | None:
    """Judge a psycopg error by its SQLSTATE; None where the server was not reached."""
    sqlstate = getattr(error, "sqlstate", None)
    return verdict_of_sqlstate(sqlstate) if isinstance(sqlstate, str) else None


def of_operational_error(error: BaseException) -> Verdict | str:
    """Judge a psycopg OperationalError; without a SQLSTATE it is of connecting: only the text says why."""
    by_sqlstate = of_sqlstate(error)
    if by_sqlstate is not None:
        return by_sqlstate
    text = str(error)
    if any(phrase in text for phrase in _REFUSED_AT_LOGIN):
        return "AUTH_ERROR"
    if "does not exist" in text or "certificate" in text:
        return _UNTIL_A_PERSON_MENDS_IT
    return "CONNECTION_ERROR"


def of_original(error: BaseException) -> Verdict | str | BaseException | None:
    """Judge the driver's error inside one of SQLAlchemy."""
    if getattr(error, "connection_invalidated", False):
        return "CONNECTION_ERROR"
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) else None


_REDIS_REPLIES: dict[str, str | Verdict] = {
    "BUSY": "SERVICE_UNAVAILABLE",
    "BUSYKEY": "VALIDATION_ERROR",
    "LOADING": "SERVICE_UNAVAILABLE",
    "MASTERDOWN": "SERVICE_UNAVAILABLE",
    "MISCONF": "SERVICE_UNAVAILABLE",
    "NOAUTH": "AUTH_ERROR",
    "NOPERM": "AUTHZ_ERROR",
    "NOREPLICAS": "SERVICE_UNAVAILABLE",
    "OOM": "SERVICE_UNAVAILABLE",
    "READONLY": "SERVICE_UNAVAILABLE",
    "TRYAGAIN": "SERVICE_UNAVAILABLE",
    "UNKILLABLE": "SERVICE_UNAVAILABLE",
    "WRONGPASS": "AUTH_ERROR",
}


def of_redis_reply(error: BaseException) -> Verdict | str:
    """Judge an error reply of Redis by its first word."""
    return _REDIS_REPLIES.get(str(error).partition(" ")[0].rstrip(":"), MISUSE)


MAPPINGS: dict[str, Target] = {
    # -- psycopg -----------------------------------------------------------------------------------
    "psycopg.Error": otherwise(of_sqlstate, _CLIENT),
    "psycopg.DataError": otherwise(of_sqlstate, "DATA_PROCESSING_ERROR"),
    "psycopg.IntegrityError": otherwise(of_sqlstate, "VALIDATION_ERROR"),
    "psycopg.InternalError": otherwise(of_sqlstate, _SERVER_DEFECT),
    "psycopg.NotSupportedError": otherwise(of_sqlstate, _STATEMENT),
    "psycopg.ProgrammingError": otherwise(of_sqlstate, MISUSE),
    "psycopg.Rollback": DEFECT,
    "psycopg.Warning": internal("a warning of PostgreSQL that somebody raised"),
    "psycopg.OperationalError": of_operational_error,
    "psycopg.errors.ConnectionTimeout": "TIMEOUT_ERROR",
    "psycopg.errors.CancellationTimeout": "TIMEOUT_ERROR",
    "psycopg.errors._WaitTimeout": "TIMEOUT_ERROR",
    "psycopg.errors.PipelineAborted": "SERVICE_UNAVAILABLE",
    "psycopg_pool.PoolTimeout": "TIMEOUT_ERROR",
    "psycopg_pool.TooManyRequests": "SERVICE_UNAVAILABLE",
    "psycopg_pool.PoolClosed": "CONNECTION_ERROR",
    # -- SQLAlchemy --------------------------------------------------------------------------------
    "sqlalchemy.exc.SQLAlchemyError": MISUSE,
    "sqlalchemy.exc.StatementError": of_original,
    "sqlalchemy.exc.DBAPIError": of_original,
    "sqlalchemy.exc.DisconnectionError": "CONNECTION_ERROR",
    "sqlalchemy.exc.TimeoutError": "SERVICE_UNAVAILABLE",  # no free connection in the pool
    "sqlalchemy.exc.EmulatedDBAPIException": internal(
        "made by SQLAlchemy for a driver that is not used here"
    ),
    "sqlalchemy.exc.NoResultFound": "VALIDATION_ERROR",
    "sqlalchemy.exc.MultipleResultsFound": "DATA_PROCESSING_ERROR",
    "sqlalchemy.orm.exc.StaleDataError": "SERVICE_UNAVAILABLE",  # another transaction was faster
    "sqlalchemy.orm.exc.ObjectDeletedError": "VALIDATION_ERROR",
    "sqlalchemy.engine.interfaces.DBAPIModule.Error": internal("a protocol class that nobody raises"),
    "sqlalchemy.util.queue.Empty": "SERVICE_UNAVAILABLE",
    "sqlalchemy.util.queue.Full": "SERVICE_UNAVAILABLE",
    "sqlite3.Error": DEFECT,
    "sqlite3.IntegrityError": "VALIDATION_ERROR",
    "sqlite3.DataError": "DATA_PROCESSING_ERROR",
    # -- Redis -------------------------------------------------------------------------------------
    "redis.exceptions.RedisError": internal("an error of Redis without a class of its own"),
    "redis.exceptions.AskError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.AuthenticationError": "AUTH_ERROR",
    "redis.exceptions.AuthenticationWrongNumberOfArgsError": "AUTH_ERROR",
    "redis.exceptions.AuthorizationError": "AUTHZ_ERROR",
    "redis.exceptions.BusyLoadingError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.ChildDeadlockedError": DEFECT,
    "redis.exceptions.ClusterCrossSlotError": MISUSE,
    "redis.exceptions.ClusterDownError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.ClusterError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.ConnectionError": "CONNECTION_ERROR",
    "redis.exceptions.DataError": MISUSE,
    "redis.exceptions.ExternalAuthProviderError": "AUTH_ERROR",
    "redis.exceptions.IncorrectPolicyType": MISUSE,
    "redis.exceptions.InvalidPipelineStack": MISUSE,
    "redis.exceptions.InvalidResponse": "CONNECTION_ERROR",
    "redis.exceptions.LockError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.MaxConnectionsError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.NoPermissionError": "AUTHZ_ERROR",
    "redis.exceptions.OutOfMemoryError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.PubSubError": MISUSE,
    "redis.exceptions.ReadOnlyError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.RedisClusterException": "SERVICE_UNAVAILABLE",
    "redis.exceptions.CrossSlotTransactionError": MISUSE,
    "redis.exceptions.ResponseError": of_redis_reply,
    "redis.exceptions.TimeoutError": "TIMEOUT_ERROR",
    "redis.exceptions.TryAgainError": "SERVICE_UNAVAILABLE",
    "redis.exceptions.WatchError": "SERVICE_UNAVAILABLE",
    "redis.auth.err.InvalidTokenSchemaErr": "AUTH_ERROR",
    "redis.auth.err.RequestTokenErr": "AUTH_ERROR",
    "redis.auth.err.TokenRenewalErr": "AUTH_ERROR",
    "redis.event.EventException": DEFECT,
}
