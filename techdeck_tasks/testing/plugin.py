"""The pytest plugin: fixtures around a `TechDeckTestbed`. Nothing is imported before the first is used.

Every name begins with ``techdeck``: pytest-celery and `celery.contrib.pytest` have all of ``celery_...``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from celery import Celery

    from techdeck_tasks.testing.clock import FakeClock
    from techdeck_tasks.testing.faults import Faults
    from techdeck_tasks.testing.testbed import TechDeckTestbed


@pytest.fixture
def techdeck_celery_app() -> Celery | None:
    """Override it to return the application under test; without that, each test has a fresh one."""
    return None


@pytest.fixture
def techdeck_settings() -> dict[str, Any]:
    """Override it to return fields of `Settings`, such as ``{"default_max_retries": 1}``."""
    return {}


@pytest.fixture
def techdeck_clock() -> FakeClock:
    """The time of the testbed: it stands still until the test or a retry's countdown moves it."""
    from techdeck_tasks.testing.clock import FakeClock  # noqa: PLC0415 - not before it is used

    return FakeClock()


@pytest.fixture
def techdeck(
    techdeck_celery_app: Celery | None, techdeck_clock: FakeClock, techdeck_settings: dict[str, Any]
) -> Iterator[TechDeckTestbed]:
    """The application in eager mode, its services in memory, and what happened to look at."""
    from techdeck_tasks.testing.testbed import TechDeckTestbed  # noqa: PLC0415 - not before it is used

    with TechDeckTestbed(techdeck_celery_app, clock=techdeck_clock, **techdeck_settings) as testbed:
        yield testbed


@pytest.fixture
def techdeck_app(techdeck: TechDeckTestbed) -> Celery:
    """The application of the testbed."""
    return techdeck.app


@pytest.fixture
def techdeck_faults(techdeck: TechDeckTestbed) -> Faults:
    """Failures on demand: ``techdeck_faults.inject("lab.fetch", ConnectionError("away"), times=2)``."""
    return techdeck.faults
