"""The specification's collector: records what happens and answers what has happened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from techdeck_tasks.clock import Clock
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.events import Event
from techdeck_tasks.metrics.buckets import MINUTES_KEPT, Bucket, hours_until, spans_between, summed
from techdeck_tasks.metrics.conditions import alert_conditions
from techdeck_tasks.metrics.filters import Filters, Period
from techdeck_tasks.metrics.recorder import MetricsRecorder
from techdeck_tasks.metrics.series import Series
from techdeck_tasks.metrics.statistics import error_statistics, service_error_rates
from techdeck_tasks.metrics.store import MetricsStore
from techdeck_tasks.metrics.trends import hourly
from techdeck_tasks.settings import Settings

CURRENT = timedelta(hours=1)
"""What alert conditions look at."""


class ErrorMetricsCollector:
    """Error statistics of all processes together, over the time that `metrics_retention_hours` keeps.

    A query first tells what this process has counted, then reads a number of counters that depends on the
    time asked about and not on how much happened in it. While Redis is away, recording goes on and queries
    raise `ServiceUnavailableError`.

    Args:
        store: where the counters are.
        recorder: counts events; a `Listener`.
        settings: thresholds and retention.
        clock: tells what "the last hour" is.
    """

    def __init__(
        self, store: MetricsStore, recorder: MetricsRecorder, settings: Settings, clock: Clock
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._settings = settings
        self._clock = clock
        self._retention = timedelta(hours=settings.metrics_retention_hours)

    # -- recording ---------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Count `event`. Never raises."""
        self._recorder.on_event(event)

    def flush(self) -> bool:
        """Tell Redis what this process still keeps; False where it is away."""
        return self._recorder.flush()

    # -- the specification's queries ---------------------------------------------------------------

    def get_error_statistics(
        self,
        time_range: Mapping[str, datetime] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what went wrong in a time, to the minute.

        Args:
            time_range: `start` and `end`, aware; None: the last 24 hours. Both are widened to whole minutes,
                and where they are older than 25 hours to whole hours.
            filters: any of `error_code`, `severity`, `service`, `operation`, `recoverable`, `hipaa_related`,
                `timestamp_start` and `timestamp_end`.

        Returns:
            The keys time_range, total_errors, error_rate (percent of the executions of the service and
            operation asked for), error_distribution and severity_distribution (percent of the errors),
            recoverability_rate (percent), top_error_codes, service_error_counts, trend_analysis and
            hipaa_compliance_metrics.

        Raises:
            ValidationError: a filter is unknown or malformed, or the time is empty or no longer kept.
            ServiceUnavailableError: Redis is away.
        """
        period = Period.parse(time_range, filters, self._clock.now(), self._retention)
        wanted = Filters.parse(filters)
        return error_statistics(period, self._read(period), wanted)

    def get_error_rate_trend(
        self, hours: int = 24, filters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return an entry for each of the last `hours` clock hours; the last one is still running.

        Each has hour (its beginning), error_count, total_requests and error_rate_percentage.

        Raises:
            ValidationError: `hours` is not between 1 and what is kept, or a filter is unknown.
            ServiceUnavailableError: Redis is away.
        """
        most = self._settings.metrics_retention_hours
        if not 1 <= hours <= most:
            raise ValidationError(
                f"hours is {hours}; use 1 to {most}, or raise TECHDECK_METRICS_RETENTION_HOURS", field="hours"
            )
        wanted = Filters.parse(filters)
        self.flush()
        return hourly(self._store.read(hours_until(self._clock.now(), hours)), wanted)

    def get_alert_conditions(self) -> list[dict[str, Any]]:
        """Return what of the last hour exceeds its threshold.

        Each has alert_type (high_error_rate, hipaa_violation or high_service_error_rate), severity, message,
        current_value and threshold, the last one also service.

        Raises:
            ServiceUnavailableError: Redis is away.
        """
        settings = self._settings
        return alert_conditions(
            self.counts(CURRENT), settings.error_rate_alert_threshold, settings.service_error_rate_thresholds
        )

    def get_service_error_rates(self, last: timedelta = CURRENT) -> dict[str, float]:
        """Return each service's errors in percent of its executions.

        Raises:
            ServiceUnavailableError: Redis is away.
        """
        return service_error_rates(self.counts(last))

    # -- counters ----------------------------------------------------------------------------------

    def counts(self, last: timedelta) -> Mapping[Series, int]:
        """Return what was counted in the time until now.

        Raises:
            ServiceUnavailableError: Redis is away.
        """
        now = self._clock.now()
        return summed(self._read(Period(now - last, now)))

    def totals(self) -> Mapping[Series, int]:
        """Return what was counted since Redis was last emptied.

        Raises:
            ServiceUnavailableError: Redis is away.
        """
        self.flush()
        return self._store.totals()

    def _read(self, period: Period) -> list[Bucket]:
        self.flush()
        kept = min(MINUTES_KEPT, self._retention)
        return self._store.read(spans_between(period.start, period.end, self._clock.now(), kept))
