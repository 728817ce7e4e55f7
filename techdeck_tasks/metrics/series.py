"""What is counted, and under which name: every event becomes increments of a few series. Pure.

A series joins every dimension that a query may filter by, so that any combination can be answered from the
same counters: the number of series is bounded, the number of events is not.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, Self

from techdeck_tasks.events import (
    BreakerTransition,
    ComplianceNotice,
    ErrorHandled,
    Event,
    ExecutionSucceeded,
    RetryScheduled,
)

OTHER = "other"
"""The service and operation of what is counted beyond the bound."""

DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
"""Upper bounds of the histogram of run times, in seconds; one more bucket takes what is longer."""

_LONGEST_NAME = 100
_SEPARATOR = "\x1f"


class Kind(StrEnum):
    """What a series counts."""

    ERROR = "e"
    """Handled errors: one for each row that the handler writes to the audit log."""
    SUCCESS = "s"
    RETRY = "r"
    NOTICE = "n"
    """Errors that ask for HIPAA notification."""
    TRANSITION = "b"
    """Changes of a breaker's state; `service` is the breaker, `code` the new state."""
    DURATION = "d"
    """Run times of successes; `code` is the index of the bucket in `DURATION_BOUNDS_S`."""
    DURATION_SUM = "t"
    """Run times of successes, added up, in microseconds."""
    DROPPED = "x"
    """Increments that were given up while Redis was away."""


class Series(NamedTuple):
    """The name of one counter. Fields that a kind does not have are empty."""

    kind: Kind
    service: str = ""
    operation: str = ""
    code: str = ""
    severity: str = ""
    recoverable: bool = False
    hipaa: bool = False

    def encode(self) -> str:
        """Return the series as the field of a Redis hash."""
        kind, service, operation, code, severity, recoverable, hipaa = self
        flags = f"{recoverable:d}{hipaa:d}"
        return _SEPARATOR.join((kind.value, service, operation, code, severity, flags))

    @classmethod
    def decode(cls, field: str) -> Self:
        """Return the series that `encode` wrote."""
        kind, service, operation, code, severity, flags = field.split(_SEPARATOR)
        return cls(Kind(kind), service, operation, code, severity, flags[0] == "1", flags[1] == "1")

    def lifetime(self) -> Self:
        """Return the series of the totals, which are kept for ever and so know no operation."""
        return self._replace(operation="")

    def overflow(self) -> Self:
        """Return the series that takes this one's counts where there are too many."""
        return self._replace(service=OTHER if self.service else "", operation=OTHER if self.operation else "")


Increment = tuple[Series, int]

DROPPED = Series(Kind.DROPPED)


def increments_of(event: Event) -> tuple[Increment, ...]:
    """Return what `event` adds to which series."""
    match event:
        case ExecutionSucceeded(service=service, operation=operation, duration_s=duration_s):
            bucket = bisect_left(DURATION_BOUNDS_S, duration_s)
            ran, lasted, in_all = _succeeded(service, operation, bucket)
            return (ran, 1), (lasted, 1), (in_all, round(duration_s * 1e6))
        case ErrorHandled():
            return (
                (
                    Series(
                        Kind.ERROR,
                        _name(event.service),
                        _name(event.operation),
                        _name(event.error_code),
                        _name(event.severity),
                        event.recoverable,
                        event.hipaa_related,
                    ),
                    1,
                ),
            )
        case RetryScheduled(service=service, operation=operation, error_code=code):
            return ((Series(Kind.RETRY, _name(service), _name(operation), _name(code)), 1),)
        case ComplianceNotice(error_code=code, severity=severity):
            return ((Series(Kind.NOTICE, code=_name(code), severity=_name(severity), hipaa=True), 1),)
        case BreakerTransition(name=name, new_state=state):
            return ((Series(Kind.TRANSITION, _name(name), code=_name(state)), 1),)


@lru_cache(maxsize=4096)
def _succeeded(service: str, operation: str, bucket: int) -> tuple[Series, Series, Series]:
    service = _name(service)
    return (
        Series(Kind.SUCCESS, service, _name(operation)),
        Series(Kind.DURATION, service, code=str(bucket)),
        Series(Kind.DURATION_SUM, service),
    )


def _name(value: str) -> str:
    return value[:_LONGEST_NAME].replace(_SEPARATOR, " ")
