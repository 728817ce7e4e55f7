"""What Prometheus is told, with Redis and without."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.metrics.exporter import MetricsServer, parse_address

if TYPE_CHECKING:
    from conftest import Deployment


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def test_counters_gauges_and_the_histogram_show_what_happened(deployment: Deployment) -> None:
    deployment.run_something()
    text = deployment.scrape()
    error = {"error_code": "AUTH_ERROR", "severity": "high", "service": "lab", "hipaa": "true"}
    assert one(text, "techdeck_errors_total", **error) == 1
    # 1 + 3 successes, and 3 errors: one through the handler.
    assert one(text, "techdeck_executions_total", service="lab") == 7
    assert one(text, "techdeck_retries_total", error_code="TIMEOUT_ERROR", service="lab") == 1
    assert one(text, "techdeck_compliance_notices_total", error_code="AUTH_ERROR") == 1
    assert one(text, "techdeck_breaker_transitions_total", breaker="lab", state="open") == 1
    assert one(text, "techdeck_breaker_state", breaker="lab", state="open") == 1
    assert one(text, "techdeck_breaker_state", breaker="lab", state="closed") == 0
    assert one(text, "techdeck_task_duration_seconds_bucket", service="web", le="0.005") == 1
    assert one(text, "techdeck_task_duration_seconds_bucket", service="web", le="0.25") == 2
    assert one(text, "techdeck_task_duration_seconds_count", service="web") == 3
    assert one(text, "techdeck_task_duration_seconds_sum", service="web") == pytest.approx(4.203)
    backlog = deployment.runtime.audit_backlog()
    assert one(text, "techdeck_audit_stream_length") == backlog.stream_entries == 1
    assert 0 <= one(text, "techdeck_audit_oldest_event_seconds") <= (backlog.oldest_age_s or 0)
    assert one(text, "techdeck_queue_length", queue="pipeline") == 0
    assert one(text, "techdeck_redis_up") == 1
    assert one(text, "techdeck_gauges_unreadable") == 0


def test_counters_only_grow_also_when_the_process_is_another(deployment: Deployment) -> None:
    before = samples(deployment.scrape())
    deployment.run_something()
    other = MetricsServer(deployment.runtime.prometheus, "127.0.0.1:0")
    try:
        after = samples(deployment.scrape())
    finally:
        other.stop()
    counters = [key for key in before if key[0].endswith(("_total", "_count", "_bucket", "_sum"))]
    assert counters
    assert all(after[key] >= before[key] for key in counters)


def test_while_redis_is_away_the_scrape_says_so(deployment: Deployment) -> None:
    deployment.redis.stop()
    text = deployment.scrape()
    assert one(text, "techdeck_redis_up") == 0
    assert one(text, "techdeck_gauges_unreadable") > 0
    assert "techdeck_errors_total" not in text
    assert one(text, "techdeck_audit_spool_bytes") == 0


@pytest.mark.parametrize("address", ["9464", "localhost:", "localhost:http", "localhost:70000", ":9464"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        parse_address(address)


def test_an_address_in_brackets_is_ipv6() -> None:
    assert parse_address("[::1]:9464") == ("::1", 9464)


def test_an_address_that_is_taken_is_refused_by_name(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValidationError, match=f"127.0.0.1:{port}"):
            MetricsServer(deployment.runtime.prometheus, f"127.0.0.1:{port}")
