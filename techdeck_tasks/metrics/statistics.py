"""The specification's error statistics, computed from counters. Pure.

An error is one handled error: each attempt that failed, whatever came of it, and each error answered to a
caller; the audit log has one `error_handling` row for each. An execution is a success or such an error. So
a rate is between 0 and 100 %, and a task that succeeded at its third attempt is two errors in three
executions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from techdeck_tasks.metrics.buckets import Bucket, summed
from techdeck_tasks.metrics.filters import Filters, Period
from techdeck_tasks.metrics.series import Kind, Series
from techdeck_tasks.metrics.trends import trend_analysis

TOP_CODES = 10


def error_statistics(period: Period, buckets: Sequence[Bucket], filters: Filters) -> dict[str, Any]:
    """Return the ten keys of the specification for the errors of `buckets` that match `filters`."""
    counts = summed(buckets)
    errors = Counter({series: n for series, n in counts.items() if filters.match_error(series)})
    executions = sum(n for series, n in counts.items() if filters.match_execution(series))
    total = errors.total()
    codes = _by(errors, lambda series: series.code)
    return {
        "time_range": {"start": period.start.isoformat(), "end": period.end.isoformat()},
        "total_errors": total,
        "error_rate": percent(total, executions),
        "error_distribution": _distribution(codes),
        "severity_distribution": _distribution(_by(errors, lambda series: series.severity)),
        "recoverability_rate": percent(_where(errors, lambda series: series.recoverable), total),
        "top_error_codes": [
            {"error_code": code, "count": count, "percentage": percent(count, total)}
            for code, count in codes.most_common(TOP_CODES)
        ],
        "service_error_counts": dict(_by(errors, lambda series: series.service).most_common()),
        "trend_analysis": trend_analysis(buckets, filters, period.middle),
        "hipaa_compliance_metrics": hipaa_metrics(errors),
    }


def hipaa_metrics(errors: Mapping[Series, int]) -> dict[str, Any]:
    """Return how many of `errors` touch protected health information; rates in percent of the errors."""
    related = Counter({series: n for series, n in errors.items() if series.hipaa})
    codes = _by(related, lambda series: series.code)
    return {
        "total_hipaa_violations": related.total(),
        "hipaa_violation_rate": percent(related.total(), sum(errors.values())),
        "hipaa_error_codes": sorted(codes),
        "most_common_hipaa_violation": codes.most_common(1)[0][0] if codes else None,
    }


def errors_in(counts: Mapping[Series, int]) -> Counter[Series]:
    """Return those of `counts` that are errors."""
    return Counter({series: n for series, n in counts.items() if series.kind is Kind.ERROR})


def error_rate(counts: Mapping[Series, int]) -> float:
    """Return the errors in percent of the executions."""
    errors = errors_in(counts).total()
    return percent(errors, errors + _where(counts, lambda series: series.kind is Kind.SUCCESS))


def service_error_rates(counts: Mapping[Series, int]) -> dict[str, float]:
    """Return each service's errors in percent of its executions, by name."""
    services: dict[str, Counter[Series]] = {}
    for series, n in counts.items():
        if series.kind in (Kind.ERROR, Kind.SUCCESS):
            services.setdefault(series.service, Counter())[series] = n
    return {name: error_rate(own) for name, own in sorted(services.items())}


def percent(part: int, whole: int) -> float:
    """Return `part` in percent of `whole`; 0 where there is nothing."""
    return 100 * part / whole if whole else 0.0


def _by(counts: Mapping[Series, int], dimension: Callable[[Series], str]) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for series, n in counts.items():
        grouped[dimension(series)] += n
    return grouped


def _distribution(counts: Counter[str]) -> dict[str, float]:
    return {name: percent(n, counts.total()) for name, n in counts.most_common()}


def _where(counts: Mapping[Series, int], wanted: Callable[[Series], bool]) -> int:
    return sum(n for series, n in counts.items() if wanted(series))
