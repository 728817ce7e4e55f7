"""Keeps calls from waiting, one after the other, for a Redis that is away."""

from __future__ import annotations


class StoreGate:
    """Shut for a while after a failure; then one caller tries, while the others go on without.

    Shared by the breakers of one client. It takes no lock: two callers that try at once do no harm, and a
    fork cannot leave it locked.

    Args:
        retry_s: seconds between two tries.
    """

    def __init__(self, retry_s: float = 1.0) -> None:
        self.retry_s = retry_s
        self._away = False
        self._retry_at = 0.0

    @property
    def away(self) -> bool:
        """Whether the last try failed."""
        return self._away

    def admits(self, now: float) -> bool:
        """Whether the store is to be asked at `now` (monotonic seconds)."""
        if not self._away:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + self.retry_s
        return True

    def failed(self, now: float) -> bool:
        """Note that the store did not answer; returns True where that is news."""
        news, self._away = not self._away, True
        self._retry_at = now + self.retry_s
        return news

    def answered(self) -> bool:
        """Note that the store answered; returns True where that is news."""
        news, self._away = self._away, False
        return news
