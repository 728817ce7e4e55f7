"""The base of all errors: what every one of them has, and the register of codes."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, ClassVar, Self, TypeGuard

from techdeck_tasks.errors.anatomy import is_open
from techdeck_tasks.errors.text import text_of
from techdeck_tasks.redaction import sanitize_context, sanitize_message
from techdeck_tasks.redaction.context import MAX_ITEMS
from techdeck_tasks.redaction.foreign import short_name

Message = str | Mapping[str, Any]
"""An error's text, or, where an error is rebuilt, what `TechDeckError.to_dict` gave."""


class Severity(StrEnum):
    """How bad an error is; members compare in that order."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for low to 3 for critical."""
        return list(Severity).index(self)


class RetryRule(Enum):
    """Whether an error of a class may be tried again, before attempts and time are considered."""

    NEVER = "never"
    ALWAYS = "always"
    BY_PATTERN = "by_pattern"
    """Where the message has one of the specification's words for a passing trouble."""
    PARK = "park"
    """A breaker is open: wait for it without spending an attempt."""


_registry: dict[str, type[TechDeckError]] = {}


def lookup(code: str) -> type[TechDeckError]:
    """Return the class registered for `code`.

    Raises:
        KeyError: no class has that code.
    """
    return _registry[code]


def registered_codes() -> tuple[str, ...]:
    """Return every code, in the order of registration."""
    return tuple(_registry)


class TechDeckError(Exception):
    """Base of every error of this package.

    The message and the details are redacted when the error is made, so that no later path (pickle, a result
    store, a log, a response) can carry more. ``cls(*error.args)`` rebuilds an equal error with the same
    `error_id`: pickle, `copy` and Celery's JSON result back end all rebuild exceptions that way.

    Args:
        message: what went wrong, the limit and the remedy; never the data. Kept to 500 characters.
        error_code: replaces the class's code on this one error.
        details: facts for the log, JSON-safe; redacted.
        recoverable: replaces the class's verdict on this one error.

    Attributes:
        error_id: UUID of this error; the same in response, audit row, metrics, header and log line.
        timestamp: when it was made, aware, UTC.
    """

    code: ClassVar[str] = "TECHDECK_ERROR"
    http_status: ClassVar[int] = 500
    severity: ClassVar[Severity] = Severity.MEDIUM
    retry_rule: ClassVar[RetryRule] = RetryRule.BY_PATTERN
    default_recoverable: ClassVar[bool] = True
    hipaa_related: ClassVar[bool] = False
    hipaa_notify: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        code: str | None = None,
        http_status: int | None = None,
        severity: Severity | None = None,
        retry: RetryRule | None = None,
        recoverable: bool | None = None,
        hipaa_related: bool | None = None,
        hipaa_notify: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        declared = {
            "http_status": http_status,
            "severity": severity,
            "retry_rule": retry,
            "default_recoverable": recoverable,
            "hipaa_related": hipaa_related,
            "hipaa_notify": hipaa_notify,
        }
        for name, value in declared.items():
            if value is not None:
                setattr(cls, name, value)
        if code is not None:
            cls.code = code
            _register(cls)

    def __init__(
        self,
        message: Message,
        *,
        error_code: str | None = None,
        details: Mapping[str, Any] | None = None,
        recoverable: bool | None = None,
    ) -> None:
        if isinstance(message, Mapping):
            self._restore(message)
        else:
            self.message = sanitize_message(message)
            self.error_code = error_code or self.code
            self.details: dict[str, Any] = sanitize_context(without_errors(details or {}))
            self.recoverable = self.default_recoverable if recoverable is None else recoverable
            self.timestamp = datetime.now(UTC)
            self.error_id = str(uuid.uuid4())
        super().__init__(self.to_dict())

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.message = sanitize_message(str(state["message"]))
        self.error_code = str(state["error_code"])
        self.details = dict(state["details"])
        self.recoverable = bool(state["recoverable"])
        self.timestamp = datetime.fromisoformat(state["timestamp"])
        self.error_id = str(state["error_id"])

    @property
    def retry_at(self) -> datetime | None:
        """The moment before which the other side asked not to be tried again; None where it said nothing."""
        said = self.details.get("retry_after") or self.details.get("reset_time")
        try:
            moment = datetime.fromisoformat(said) if isinstance(said, str) else None
        except ValueError:  # an application's own detail of that name
            return None
        return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-safe data; `timestamp` is ISO 8601 with its offset."""
        return {
            "error_id": self.error_id,
            "error_code": self.error_code,
            "message": self.message,
            "details": self.details,
            "recoverable": self.recoverable,
            "timestamp": self.timestamp.isoformat(),
        }

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        identity = f"error_code={self.error_code!r}, error_id={self.error_id!r}"
        return f"{type(self).__name__}({self.message!r}, {identity})"

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and isinstance(other, TechDeckError)
            and other.to_dict() == self.to_dict()
        )

    def __hash__(self) -> int:
        return hash(self.error_id)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # Exception's own __reduce__ would also copy __dict__, and with it whatever a caller hung there.
        return type(self), self.args


def _register(cls: type[TechDeckError]) -> None:
    taken = _registry.get(cls.code)
    # A reloaded module defines the same class again; that is no clash.
    if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(
            f"error code {cls.code!r} of {cls.__qualname__} is taken by {taken.__qualname__}; choose another"
        )
    _registry[cls.code] = cls


_registry[TechDeckError.code] = TechDeckError


def is_ours(error: object) -> TypeGuard[TechDeckError]:
    """Whether `error` is one of ours, and may be asked. Unlike `isinstance` it runs no code of others."""
    kind = type(error)
    return issubclass(kind, TechDeckError) and is_open(kind)


def describe_error(error: BaseException | None) -> str | None:
    """Return `error` as ``Type: message``, redacted and bounded; None for None. Never raises."""
    if error is None:
        return None
    name, text = short_name(type(error)), text_of(error)
    return sanitize_message(f"{name}: {text}" if text else name)


def without_errors(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return `facts`, of those that `sanitize_context` reads each exception as `describe_error` tells it."""
    told = dict(facts)
    for name in itertools.islice(facts, MAX_ITEMS):
        # Not isinstance: it asks the value for its class, which runs code of others.
        if issubclass(type(told[name]), BaseException):
            told[name] = describe_error(told[name])
    return told
