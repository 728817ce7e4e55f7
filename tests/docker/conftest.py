"""Real containers: the project's image, its compose file, and pytest-celery's cluster with both.

Run by `make test-docker`. Base images are those of the compose file unless `PYTHON_IMAGE`, `REDIS_IMAGE` and
`POSTGRES_IMAGE` name others, or no registry is reached and this machine's engine has others of those names.
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


BASE_IMAGES = {
    "PYTHON_IMAGE": "python:3.12-slim",
    "REDIS_IMAGE": "redis:7",
    "POSTGRES_IMAGE": "postgres:17",
}


def pytest_sessionstart() -> None:
    for variable, image in BASE_IMAGES.items():
        os.environ.setdefault(variable, _at_hand(image))


def _at_hand(image: str) -> str:
    """Return `image`; where it cannot be had, one of another origin that the engine has already."""
    if any(_docker(*command, image).returncode == 0 for command in (("image", "inspect"), ("pull",))):
        return image
    name = image.partition(":")[0]
    local = _docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    return next((found for found in local if found.partition(":")[0].endswith(f"/{name}")), image)


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def techdeck_image() -> str:
    """The worker image, built from this checkout."""
    base = f"PYTHON_IMAGE={os.environ['PYTHON_IMAGE']}"
    built = _docker("build", "--quiet", "--tag", IMAGE, "--build-arg", base, str(PROJECT))
    remedy = f"images can be named: {', '.join(BASE_IMAGES)}"
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
