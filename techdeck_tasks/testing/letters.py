"""Dead letters and interventions for a test suite without Redis: the real store on a shelf in the process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

from techdeck_tasks.storage.timeline import Place
from techdeck_tasks.tasks.letters import MAX_LETTERS, LetterKind


class InMemoryShelf:
    """Keeps sealed letters; passes the same contract suite as the shelf in Redis.

    Args:
        kind: which letters.
        max_letters: the oldest beyond it are dropped.
    """

    def __init__(self, kind: LetterKind, *, max_letters: int = MAX_LETTERS) -> None:
        self.kind = kind
        self._max_letters = max_letters
        self._letters: dict[str, tuple[datetime, bytes]] = {}
        self._lock = threading.Lock()

    def put(self, letter_id: str, sealed: bytes, at: datetime, oldest: datetime) -> None:
        """Keep a letter; drop what is older than `oldest`, and the oldest of too many."""
        with self._lock:
            self._letters[letter_id] = (at, sealed)
            newest = self._newest_first()[: self._max_letters]
            self._letters = {
                known: self._letters[known] for known in newest if self._letters[known][0] > oldest
            }

    def ids(self) -> list[str]:
        """Return the ids of all letters."""
        with self._lock:
            return list(self._letters)

    def places(self, limit: int, before: Place | None = None) -> list[Place]:
        """Return the places of the newest letters, newest first; after the place `before` in that order."""
        with self._lock:
            newest = [(self._letters[known][0], known) for known in self._newest_first()]
        return [place for place in newest if before is None or place < before][:limit]

    def read(self, letter_ids: Sequence[str]) -> list[bytes | None]:
        """Return those letters; None for one that is gone."""
        with self._lock:
            return [self._letters[known][1] if known in self._letters else None for known in letter_ids]

    def remove(self, letter_id: str) -> bool:
        """Remove a letter; False where it is gone already."""
        with self._lock:
            return self._letters.pop(letter_id, None) is not None

    def count(self) -> int:
        """Return how many letters there are."""
        return len(self._letters)

    def _newest_first(self) -> list[str]:
        # As Redis has it: equal times are ordered by the id.
        return sorted(self._letters, key=lambda known: (self._letters[known][0], known), reverse=True)
