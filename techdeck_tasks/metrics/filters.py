"""Which errors, and of which time, a query is about; what it may not ask is refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

from techdeck_tasks.errors import Severity, ValidationError
from techdeck_tasks.metrics.series import Kind, Series

DEFAULT_RANGE = timedelta(hours=24)

_TEXT_FIELDS = {"error_code": "code", "severity": "severity", "service": "service", "operation": "operation"}
_FLAGS = {"recoverable": "recoverable", "hipaa_related": "hipaa"}
_TIMES = ("timestamp_start", "timestamp_end")
_KNOWN = (*_TEXT_FIELDS, *_FLAGS, *_TIMES)
_OF_EXECUTIONS = ("service", "operation")


@dataclass(frozen=True, slots=True)
class Filters:
    """What the fields of a series must be; an empty one lets every series through."""

    wanted: Mapping[str, str | bool] = field(default_factory=dict)

    @classmethod
    def parse(cls, filters: Mapping[str, Any] | None) -> Self:
        """Return the filters that a caller named; its times belong to `Period.parse`.

        Raises:
            ValidationError: a filter is unknown, or its value is of the wrong type.
        """
        wanted: dict[str, str | bool] = {}
        for name, value in (filters or {}).items():
            if name in _TIMES:
                continue
            if name in _TEXT_FIELDS and isinstance(value, str):
                wanted[_TEXT_FIELDS[name]] = value
            elif name in _FLAGS and isinstance(value, bool):
                wanted[_FLAGS[name]] = value
            else:
                raise _refused(name)
        severity = wanted.get("severity")
        if severity is not None and severity not in set(Severity):
            raise ValidationError(
                f"severity {severity!r} does not exist; use one of {', '.join(Severity)}", field="severity"
            )
        return cls(wanted)

    def match_error(self, series: Series) -> bool:
        """Whether `series` counts errors that are asked for."""
        return series.kind is Kind.ERROR and all(
            getattr(series, name) == value for name, value in self.wanted.items()
        )

    def match_execution(self, series: Series) -> bool:
        """Whether `series` counts executions that those errors are a part of.

        A success has no code and no severity: a rate is of all executions of the service and operation asked
        for.
        """
        return series.kind in (Kind.SUCCESS, Kind.ERROR) and all(
            getattr(series, name) == self.wanted[name] for name in _OF_EXECUTIONS if name in self.wanted
        )


@dataclass(frozen=True, slots=True)
class Period:
    """A time from `start` to `end`, aware."""

    start: datetime
    end: datetime

    @property
    def middle(self) -> datetime:
        """When half of it is over."""
        return self.start + (self.end - self.start) / 2

    @classmethod
    def parse(
        cls,
        time_range: Mapping[str, datetime] | None,
        filters: Mapping[str, Any] | None,
        now: datetime,
        retention: timedelta,
    ) -> Self:
        """Return the time a caller asks about: `time_range`, narrowed by the filters' times.

        Args:
            time_range: `start` and `end`; None: the last 24 hours, or the retention where that is shorter.
            filters: may hold `timestamp_start` and `timestamp_end`.
            now: the present.
            retention: how far back anything is known.

        Raises:
            ValidationError: a moment is missing or has no zone, the end is not after the start, or the start
                is older than what is kept.
        """
        if time_range is None:
            time_range = {"start": now - min(DEFAULT_RANGE, retention), "end": now}
        if unknown := set(time_range) - {"start", "end"}:
            raise ValidationError(
                f"time_range has no {', '.join(sorted(unknown))}; give start and end", field="time_range"
            )
        moments = {
            "start": [_moment("time_range.start", time_range.get("start"))],
            "end": [_moment("time_range.end", time_range.get("end"))],
        }
        for name in _TIMES:
            if filters and name in filters:
                moments[name.removeprefix("timestamp_")].append(_moment(name, filters[name]))
        start, end = max(moments["start"]), min(moments["end"])
        if start >= end:
            raise ValidationError(
                f"the time asked for ends ({end.isoformat()}) before it begins ({start.isoformat()}); "
                "give an end after the start",
                field="time_range",
            )
        if start < now - retention - timedelta(hours=1):
            raise ValidationError(
                f"time_range.start is {start.isoformat()}, and metrics are kept for "
                f"{retention / timedelta(hours=1):g} hours; begin later, "
                "or raise TECHDECK_METRICS_RETENTION_HOURS",
                field="time_range.start",
            )
        return cls(start, end)


def _moment(name: str, value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValidationError(f"{name} must be a datetime with a zone, as datetime.now(UTC) is", field=name)
    return value


def _refused(name: str) -> ValidationError:
    if name in _KNOWN:
        kind = "text" if name in _TEXT_FIELDS else "true or false"
        return ValidationError(f"the filter {name} must be {kind}", field=name)
    return ValidationError(
        f"metrics have no {name!r}: they hold nothing of persons; filter by {', '.join(_KNOWN)}, "
        "and look for the rest in the audit log",
        field=name,
    )
