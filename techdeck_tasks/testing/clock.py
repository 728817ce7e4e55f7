"""A clock that stands still until the test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """The time as the test sets it; sleeping moves it and never waits.

    Args:
        start: the wall clock's time to begin with, aware.

    Attributes:
        elapsed: seconds since then; a test may set it.
        slept: every sleep so far, in seconds.
    """

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self.elapsed = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        """Return the wall clock's time, aware."""
        return self._start + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        """Move the time on by `seconds`."""
        self.slept.append(seconds)
        self.elapsed += seconds
