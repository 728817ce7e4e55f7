"""The folder `monitoring` against the real Prometheus."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Deployment, Prometheus

Program = Callable[[str], str]
Until = Callable[[Callable[[], Any], str], Any]

MONITORING = Path(__file__).parents[3] / "monitoring"


def queries() -> dict[str, list[str]]:
    """Return the queries of each panel of the dashboard."""
    panels = json.loads((MONITORING / "grafana" / "techdeck.json").read_text())["panels"]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in panels}


@pytest.mark.needs_program("promtool")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
)
def test_promtool_finds_no_fault(program: Program, arguments: tuple[str, ...]) -> None:
    ran = subprocess.run(
        (program("promtool"), *arguments), cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.needs_program("promtool")
def test_promtool_finds_no_fault_in_what_is_served(program: Program, deployment: Deployment) -> None:
    deployment.run_something()
    ran = subprocess.run(
        (program("promtool"), "check", "metrics"),
        input=deployment.scrape(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not ran.stderr, "a lint of a name or a help text"


@pytest.mark.needs_program("prometheus")
def test_every_query_of_the_dashboard_finds_something(
    deployment: Deployment, prometheus: Prometheus, until: Until
) -> None:
    def found(expression: str) -> Any:
        # Rates need several scrapes between which something happened.
        deployment.run_something()
        return prometheus.query(expression)

    for title, expressions in queries().items():
        for expression in expressions:
            until(partial(found, expression), f"{title}: {expression}")


@pytest.mark.needs_program("prometheus")
def test_prometheus_and_the_statistics_count_alike(
    deployment: Deployment, prometheus: Prometheus, until: Until
) -> None:
    for _ in range(5):
        deployment.run_something()
    expected = deployment.runtime.metrics.get_error_statistics()["total_errors"]
    assert expected == 11
    until(lambda: prometheus.value("sum(techdeck_errors_total)") == expected, "the errors are scraped")


@pytest.mark.needs_program("prometheus")
def test_an_outage_of_redis_is_seen(deployment: Deployment, prometheus: Prometheus, until: Until) -> None:
    deployment.redis.stop()
    until(lambda: prometheus.value("techdeck_redis_up") == 0, "the outage is scraped")
    until(
        lambda: prometheus.query('ALERTS{alertname="TechDeckMetricsDown",alertstate="pending"}'),
        "the alert waits for its time",
    )
