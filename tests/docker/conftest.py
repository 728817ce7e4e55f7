"""Real containers: the project's image, its compose file, and pytest-celery's cluster with both.

Run by `make test-docker`. Base images are those of the compose file unless `PYTHON_IMAGE`, `REDIS_IMAGE` and
`POSTGRES_IMAGE` name others.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
IMAGE = "techdeck-tasks"

Eventually = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def techdeck_image() -> str:
    """The worker image, built from this checkout."""
    arguments = (
        [f"--build-arg=PYTHON_IMAGE={os.environ['PYTHON_IMAGE']}"] if "PYTHON_IMAGE" in os.environ else []
    )
    built = subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, *arguments, str(PROJECT)],
        capture_output=True,
        text=True,
        check=False,
    )
    remedy = (
        "without an image registry name images at hand: PYTHON_IMAGE, REDIS_IMAGE, POSTGRES_IMAGE"
    )
    assert built.returncode == 0, f"{built.stderr}\n{remedy}"
    return IMAGE


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    def wait(condition: Callable[[], object], timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
            time.sleep(0.2)

    return wait
