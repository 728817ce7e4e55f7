"""A deployment with something of everything to show, its exporter, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.errors import ServiceUnavailableError
from techdeck_tasks.events import ComplianceNotice, ErrorHandled, ExecutionSucceeded, Outcome, RetryScheduled
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.metrics.exporter import MetricsServer
from techdeck_tasks.runtime import Runtime, create_app, runtime_of
from techdeck_tasks.settings import load_settings

MONITORING = Path(__file__).parents[3] / "monitoring"
DEADLINE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Return the first true value of `condition`."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    return wait_until


@dataclass(frozen=True)
class Deployment:
    """A runtime on a Redis of its own, and where it serves its metrics."""

    runtime: Runtime
    redis: EmbeddedRedis
    port: int

    def scrape(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def run_something(self) -> None:
        """Let something of every kind happen."""
        now = datetime.now(UTC)
        told = self.runtime.metrics
        for service in ("lab", "web"):
            for duration_s in (0.003, 0.2, 4.0):
                told.on_event(
                    ExecutionSucceeded(
                        service=service,
                        operation=f"{service}.run",
                        duration_s=duration_s,
                        attempt=0,
                        occurred_at=now,
                    )
                )
        for code, hipaa in (("TIMEOUT_ERROR", False), ("AUTH_ERROR", True)):
            told.on_event(
                ErrorHandled(
                    error_id="1",
                    error_code=code,
                    severity="high" if hipaa else "medium",
                    recoverable=not hipaa,
                    hipaa_related=hipaa,
                    service="lab",
                    operation="lab.run",
                    outcome=Outcome.FAILED,
                    occurred_at=now,
                )
            )
        told.on_event(
            RetryScheduled(
                service="lab",
                operation="lab.run",
                error_code="TIMEOUT_ERROR",
                attempt=0,
                delay_s=1,
                occurred_at=now,
            )
        )
        told.on_event(
            ComplianceNotice(
                error_id="1", error_code="AUTH_ERROR", violation_type=None, severity="high", occurred_at=now
            )
        )


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    generate_keys(tmp_path / "producer", tmp_path / "reader", tmp_path / "signer")
    with EmbeddedRedis(tmp_path / "data") as server:
        settings = load_settings(
            redis_url=server.url,
            redis_timeout_seconds=2,
            keys_dir=tmp_path / "producer",
            reader_keys_dir=tmp_path / "reader",
            audit_spool_dir=tmp_path / "spool",
        )
        runtime = runtime_of(create_app(settings))
        runtime.listeners.on_event(
            ExecutionSucceeded(
                service="lab", operation="lab.run", duration_s=1, attempt=0, occurred_at=datetime.now(UTC)
            )
        )
        for _ in range(settings.circuit_breaker_failure_threshold):
            runtime.breakers.record_failure("lab")
        runtime.handler.handle(ServiceUnavailableError("the lab is away"), {"service": "lab"})
        metrics = MetricsServer(runtime.prometheus, "127.0.0.1:0")
        try:
            yield Deployment(runtime, server, metrics.port)
        finally:
            metrics.stop()


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that `expression` finds now."""
        with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        found: list[dict[str, Any]] = document["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the only value of `expression`; None where there is none yet."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


@pytest.fixture
def prometheus(deployment: Deployment, tmp_path: Path, program: Callable[[str], str]) -> Iterator[Prometheus]:
    """Prometheus with the folder's own configuration, but for target and interval."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
    config["rule_files"] = [str(MONITORING / "rules.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{deployment.port}"]}]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    log = tmp_path / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (
                program("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: _is_up(process, prometheus, log), "Prometheus scrapes")
        yield prometheus
    finally:
        process.terminate()
        process.wait(20)


def _is_up(process: subprocess.Popen[bytes], prometheus: Prometheus, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return prometheus.value("up") == 1
    except OSError:
        return False
