"""What of the last hour deserves an alert, with the specification's types and keys. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from techdeck_tasks.metrics.series import Series
from techdeck_tasks.metrics.statistics import error_rate, errors_in, hipaa_metrics, service_error_rates

DEFAULT_SERVICE_THRESHOLD = 5.0
"""Percent, for a service that has no threshold of its own."""


def alert_conditions(
    counts: Mapping[Series, int], threshold: float, service_thresholds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the conditions that hold; rates and thresholds are percent of executions.

    The HIPAA condition's value alone is in percent of the errors, as in `hipaa_compliance_metrics`.
    """
    conditions: list[dict[str, Any]] = []
    rate = error_rate(counts)
    if rate > threshold:
        conditions.append(
            {
                "alert_type": "high_error_rate",
                "severity": "warning",
                "message": f"Error rate is {rate:.2f}%, exceeding threshold of {threshold}%",
                "current_value": rate,
                "threshold": threshold,
            }
        )
    hipaa_rate = hipaa_metrics(errors_in(counts))["hipaa_violation_rate"]
    if hipaa_rate > 0:
        conditions.append(
            {
                "alert_type": "hipaa_violation",
                "severity": "critical",
                "message": f"HIPAA compliance violations detected: {hipaa_rate:.2f}%",
                "current_value": hipaa_rate,
                "threshold": 0,
            }
        )
    for service, own_rate in service_error_rates(counts).items():
        own_threshold = service_thresholds.get(service, DEFAULT_SERVICE_THRESHOLD)
        if own_rate > own_threshold:
            conditions.append(
                {
                    "alert_type": "high_service_error_rate",
                    "severity": "warning",
                    "message": f"{service} error rate is {own_rate:.2f}%, "
                    f"exceeding threshold of {own_threshold}%",
                    "service": service,
                    "current_value": own_rate,
                    "threshold": own_threshold,
                }
            )
    return conditions
