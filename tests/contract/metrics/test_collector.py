"""The specification's queries, from events to answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.events import BreakerTransition, ComplianceNotice, RetryScheduled
from techdeck_tasks.metrics import ErrorMetricsCollector
from techdeck_tasks.metrics.series import Kind

New = Callable[..., Any]


@pytest.fixture
def told(metrics: ErrorMetricsCollector, new_error: New, new_success: New) -> ErrorMetricsCollector:
    """A collector that heard of 4 errors in 10 executions of three services."""
    for _ in range(5):
        metrics.on_event(new_success())
    metrics.on_event(new_success(service="billing", operation="billing.send"))
    metrics.on_event(new_error())
    metrics.on_event(new_error())
    metrics.on_event(
        new_error(error_code="AUTH_ERROR", severity="high", recoverable=False, hipaa_related=True)
    )
    metrics.on_event(new_error(service="web", operation="request", severity="low"))
    return metrics


def test_the_statistics_have_the_specifications_ten_keys(told: ErrorMetricsCollector) -> None:
    statistics = told.get_error_statistics()
    assert list(statistics) == [
        "time_range",
        "total_errors",
        "error_rate",
        "error_distribution",
        "severity_distribution",
        "recoverability_rate",
        "top_error_codes",
        "service_error_counts",
        "trend_analysis",
        "hipaa_compliance_metrics",
    ]
    assert statistics["total_errors"] == 4
    assert statistics["error_rate"] == pytest.approx(40)
    assert statistics["error_distribution"] == {"TIMEOUT_ERROR": 75, "AUTH_ERROR": 25}
    assert statistics["severity_distribution"] == {"medium": 50, "high": 25, "low": 25}
    assert statistics["recoverability_rate"] == 75
    assert statistics["top_error_codes"][0] == {"error_code": "TIMEOUT_ERROR", "count": 3, "percentage": 75}
    assert statistics["service_error_counts"] == {"lab": 3, "web": 1}
    assert statistics["hipaa_compliance_metrics"] == {
        "total_hipaa_violations": 1,
        "hipaa_violation_rate": 25,
        "hipaa_error_codes": ["AUTH_ERROR"],
        "most_common_hipaa_violation": "AUTH_ERROR",
    }
    hours = statistics["trend_analysis"]["hourly"]
    assert sum(entry["error_count"] for entry in hours) == 4
    assert sum(entry["total_requests"] for entry in hours) == 10


@pytest.mark.parametrize(
    ("filters", "errors", "rate"),
    [
        ({"error_code": "TIMEOUT_ERROR"}, 3, 30),
        ({"severity": "high"}, 1, 10),
        ({"service": "lab"}, 3, 37.5),
        ({"service": "lab", "error_code": "AUTH_ERROR"}, 1, 12.5),
        ({"operation": "request"}, 1, 100),
        ({"hipaa_related": True}, 1, 10),
        ({"hipaa_related": False, "service": "lab", "severity": "medium"}, 2, 25),
        ({"recoverable": False}, 1, 10),
        ({"service": "nobody"}, 0, 0),
    ],
)
def test_filters_combine_over_every_dimension(
    told: ErrorMetricsCollector, filters: dict[str, Any], errors: int, rate: float
) -> None:
    statistics = told.get_error_statistics(filters=filters)
    assert statistics["total_errors"] == errors
    assert statistics["error_rate"] == pytest.approx(rate)


def test_a_time_is_answered_to_the_minute(metrics: ErrorMetricsCollector, new_error: New) -> None:
    now = datetime.now(UTC).replace(second=30)
    for minutes in (5, 65, 200, 24 * 60 - 1):
        metrics.on_event(new_error(occurred_at=now - timedelta(minutes=minutes)))

    def errors(minutes: int, until: int = 0, **filters: datetime) -> int:
        times = {"start": now - timedelta(minutes=minutes), "end": now - timedelta(minutes=until)}
        return int(metrics.get_error_statistics(times, filters)["total_errors"])

    assert [errors(4), errors(5), errors(64), errors(65), errors(24 * 60)] == [0, 1, 1, 2, 4]
    assert errors(24 * 60, 30) == 3
    assert (
        errors(24 * 60, timestamp_start=now - timedelta(hours=4), timestamp_end=now - timedelta(hours=1)) == 2
    )
    assert metrics.get_error_statistics()["total_errors"] == 4


def test_the_trend_has_an_entry_for_every_hour(metrics: ErrorMetricsCollector, new_error: New) -> None:
    now = datetime.now(UTC)
    metrics.on_event(new_error(occurred_at=now - timedelta(hours=3)))
    metrics.on_event(new_error())
    trend = metrics.get_error_rate_trend(24)
    assert len(trend) == 24
    assert list(trend[0]) == ["hour", "error_count", "total_requests", "error_rate_percentage"]
    assert [entry["error_count"] for entry in trend[-4:]] == [1, 0, 0, 1]
    assert trend[-1]["hour"] == now.replace(minute=0, second=0, microsecond=0).isoformat()
    assert trend[-1]["error_rate_percentage"] == 100


def test_the_three_conditions_have_the_specifications_keys(
    told: ErrorMetricsCollector, new_error: New
) -> None:
    conditions = told.get_alert_conditions()
    assert [(c["alert_type"], c["severity"]) for c in conditions] == [
        ("high_error_rate", "warning"),
        ("hipaa_violation", "critical"),
        ("high_service_error_rate", "warning"),
    ]
    for condition in conditions:
        assert {"alert_type", "severity", "message", "current_value", "threshold"} <= set(condition)
    # lab's own threshold is 60 %, web has none of its own.
    assert conditions[2] == {
        "alert_type": "high_service_error_rate",
        "severity": "warning",
        "message": "web error rate is 100.00%, exceeding threshold of 5.0%",
        "service": "web",
        "current_value": 100,
        "threshold": 5.0,
    }


def test_what_is_over_for_an_hour_alerts_nobody(metrics: ErrorMetricsCollector, new_error: New) -> None:
    metrics.on_event(new_error(occurred_at=datetime.now(UTC) - timedelta(minutes=62), hipaa_related=True))
    assert metrics.get_alert_conditions() == []


def test_retries_notices_and_transitions_are_counted_and_are_no_errors(
    metrics: ErrorMetricsCollector,
) -> None:
    now = datetime.now(UTC)
    metrics.on_event(
        RetryScheduled(
            service="lab", operation="x", error_code="TIMEOUT_ERROR", attempt=0, delay_s=1, occurred_at=now
        )
    )
    metrics.on_event(
        ComplianceNotice(
            error_id="1", error_code="AUTH_ERROR", violation_type=None, severity="high", occurred_at=now
        )
    )
    metrics.on_event(
        BreakerTransition(
            name="lab", old_state="closed", new_state="open", epoch=1, reason="failures", occurred_at=now
        )
    )
    assert {series.kind for series in metrics.totals()} == {Kind.RETRY, Kind.NOTICE, Kind.TRANSITION}
    assert metrics.get_error_statistics()["total_errors"] == 0


def test_service_rates_are_of_each_services_own_executions(told: ErrorMetricsCollector) -> None:
    assert told.get_service_error_rates() == {"billing": 0, "lab": 37.5, "web": 100}


@pytest.mark.parametrize(
    ("time_range", "filters", "field", "said"),
    [
        (None, {"user_id": "7"}, "user_id", "filter by error_code"),
        (None, {"service": 7}, "service", "must be text"),
        (None, {"hipaa_related": "yes"}, "hipaa_related", "true or false"),
        (None, {"severity": "worse"}, "severity", "use one of low"),
        (None, {"timestamp_start": datetime(2026, 1, 1)}, "timestamp_start", "zone"),  # noqa: DTZ001 - refused
        ({"start": datetime.now(UTC)}, None, "time_range.end", "zone"),
        ({"start": datetime.now(UTC), "end": datetime.now(UTC), "step": 1}, None, "time_range", "no step"),
        ({"start": datetime.now(UTC), "end": datetime(2020, 1, 1, tzinfo=UTC)}, None, "time_range", "begins"),
        (
            {"start": datetime(2020, 1, 1, tzinfo=UTC), "end": datetime.now(UTC)},
            None,
            "time_range.start",
            "48 hours",
        ),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_by_name(
    metrics: ErrorMetricsCollector, time_range: Any, filters: Any, field: str, said: str
) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        metrics.get_error_statistics(time_range, filters)
    assert refused.value.details["field"] == field


@pytest.mark.parametrize("hours", [0, 49])
def test_a_trend_of_more_hours_than_are_kept_is_refused(metrics: ErrorMetricsCollector, hours: int) -> None:
    with pytest.raises(ValidationError, match="use 1 to 48"):
        metrics.get_error_rate_trend(hours)
