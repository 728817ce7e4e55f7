"""The whole service as an operator starts it: `techdeck up` in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from techdeck_tasks.devservices.ports import free_port
from techdeck_tasks.settings import DEFAULT_ENV_FILE, ENV_PREFIX, Settings


def clean_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing of ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    return {**inherited, "COLUMNS": "100", **extra}


class Techdeck(Protocol):
    """Runs `techdeck` as a user does."""

    def __call__(
        self, *arguments: str, timeout_s: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]: ...


def techdeck_in(folder: Path) -> Techdeck:
    """Return the command, run in `folder`."""

    def run(*arguments: str, timeout_s: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "techdeck_tasks", *arguments],
            cwd=folder,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@dataclass(frozen=True)
class Service:
    """A running service, the folder it was started in, and the command run there."""

    folder: Path
    techdeck: Techdeck
    metrics_port: int

    @property
    def settings(self) -> Settings:
        """What its workers were told."""
        return Settings(_env_file=self.folder / DEFAULT_ENV_FILE)


@pytest.fixture
def techdeck(tmp_path: Path) -> Techdeck:
    """The command, in an empty folder with no service."""
    return techdeck_in(tmp_path)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, up for the whole session, stopped by Ctrl-C at its end."""
    folder = tmp_path_factory.mktemp("service")
    metrics_port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "techdeck_tasks", "up", "--metrics-port", str(metrics_port)],
        cwd=folder,
        env=clean_environment(TECHDECK_LOG_LEVEL="INFO"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    try:
        assert first.startswith("running"), f"techdeck up said {first!r} and ended with {process.wait(10)}"
        yield Service(folder, techdeck_in(folder), metrics_port)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
