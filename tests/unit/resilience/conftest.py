"""A time that passes only when the test says so."""

from __future__ import annotations

import pytest

from techdeck_tasks.settings import Settings
from techdeck_tasks.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings() -> Settings:
    return Settings(circuit_breaker_failure_threshold=50)
