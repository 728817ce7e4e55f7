"""What an operator sees of a running service: statistics, trend, top, and what Prometheus is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import pytest

EXITS = {"ok": 0, "bad input": 2, "unavailable": 3}


@pytest.fixture(scope="session")
def used(service: Any) -> Any:
    """A service that ran a pipeline which failed."""
    folder: Path = service.folder
    pl.DataFrame({"age": [30, 41, 52]}).write_csv(folder / "counted.csv")
    definition = {
        "name": "counted",
        "source": {"url": "counted.csv"},
        "stages": [
            {"name": "load", "stage": "dataset_load"},
            {
                "name": "check",
                "stage": "validation",
                "needs": ["load"],
                "params": {"columns": {"age": {"le": 35}}, "max_bad_rows": 0},
            },
        ],
    }
    (folder / "counted.json").write_text(json.dumps(definition))
    assert service.techdeck("run", "counted.json").returncode == 1
    return service


def answer(service: Any, *arguments: str) -> Any:
    ran = service.techdeck(*arguments, "--json")
    assert ran.returncode == EXITS["ok"], ran.stderr
    return json.loads(ran.stdout)


def test_stats_counts_what_the_audit_log_has(used: Any) -> None:
    statistics = answer(used, "stats", "--code", "VALIDATION_ERROR")
    assert statistics["total_errors"] > 0
    deadline = time.monotonic() + 30
    recorded = 0
    while recorded != statistics["total_errors"]:
        # Metrics are there at once; the log's rows are on their way through the stream.
        assert time.monotonic() < deadline, (recorded, statistics["total_errors"])
        rows = answer(used, "audit", "list", "--code", "VALIDATION_ERROR", "--limit", "1000")
        recorded = len([row for row in rows if row["event_type"] == "error_handling"])
    assert statistics["error_distribution"] == {"VALIDATION_ERROR": 100}


def test_stats_and_trend_can_be_read(used: Any) -> None:
    stats = used.techdeck("stats")
    assert stats.returncode == EXITS["ok"], stats.stderr
    assert "VALIDATION_ERROR" in stats.stdout
    assert "executions of the last 24 h" in stats.stdout
    trend = used.techdeck("trend", "--hours", "3")
    assert trend.returncode == EXITS["ok"], trend.stderr
    assert len([line for line in trend.stdout.splitlines() if "%" in line]) == 3
    assert len(answer(used, "trend", "--hours", "3")) == 3


def test_a_filter_that_matches_nothing_shows_no_errors(used: Any) -> None:
    stats = used.techdeck("stats", "--service", "nobody")
    assert stats.returncode == EXITS["ok"], stats.stderr
    assert "0 errors in 0 executions" in stats.stdout


def test_top_shows_services_queues_and_what_waits(used: Any) -> None:
    seen = answer(used, "top")
    assert seen["queues"].keys() == {"pipeline", "audit"}
    assert seen["services"]["validation"]["error_rate_percentage"] > 0
    assert seen["waiting"]["audit_spool_bytes"] == 0
    shown = used.techdeck("top", "--once")
    assert shown.returncode == EXITS["ok"], shown.stderr
    assert "queue pipeline" in shown.stdout
    assert "validation" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stats", "--severity", "worse"), "use one of low"),
        (("trend", "--hours", "9999"), "use 1 to 720"),
        (("metrics", "serve", "--address", "9464"), "HOST:PORT"),
    ],
)
def test_what_cannot_be_answered_is_refused(used: Any, arguments: tuple[str, ...], said: str) -> None:
    refused = used.techdeck(*arguments)
    assert refused.returncode == EXITS["bad input"]
    assert said in refused.stderr


@pytest.mark.parametrize("command", [("stats",), ("trend",), ("top", "--once")])
def test_without_redis_a_command_says_so(techdeck: Any, command: tuple[str, ...]) -> None:
    ran = techdeck(*command, TECHDECK_REDIS_URL="redis://127.0.0.1:1/0")
    assert ran.returncode == EXITS["unavailable"]
    assert "redis does not answer" in ran.stderr


def test_metrics_are_served_until_it_is_told_to_stop(used: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "techdeck_tasks", "metrics", "serve", "--address", "127.0.0.1:0"],
        cwd=used.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with urlopen(url, timeout=10) as page:
            text = page.read().decode()
        assert 'techdeck_errors_total{error_code="VALIDATION_ERROR"' in text
        assert "techdeck_redis_up 1.0" in text
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0
