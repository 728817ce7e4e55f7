"""Workers and beat serve the numbers where they are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from techdeck_tasks.celeryconfig import Role
from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.runtime import create_app
from techdeck_tasks.settings import load_settings

if TYPE_CHECKING:
    from conftest import Deployment

Until = Callable[[Callable[[], Any], str], Any]


@pytest.mark.parametrize("role", ["pipeline", "beat"])
def test_a_process_serves_what_all_processes_counted(
    deployment: Deployment, until: Until, tmp_path: Path, role: str
) -> None:
    deployment.run_something()
    port = free_port()
    log = tmp_path / f"{role}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, "-m", "techdeck_tasks", "worker", role),
            cwd=tmp_path,
            env={
                **os.environ,
                "TECHDECK_REDIS_URL": deployment.redis.url,
                "TECHDECK_KEYS_DIR": str(tmp_path / "producer"),
                "TECHDECK_METRICS_ADDRESS": f"127.0.0.1:{port}",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def page() -> str:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    try:
        assert 'techdeck_executions_total{service="web"} 3.0' in until(page, f"{role} serves its metrics")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def test_a_malformed_address_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        create_app(load_settings(metrics_address="9464"), role=Role.BEAT)
