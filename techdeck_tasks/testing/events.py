"""What the listeners of a runtime hear, kept for a test to look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from techdeck_tasks.events import Event

E = TypeVar("E", bound=Event)


class EventLog:
    """A `Listener` that keeps every event, in order."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def on_event(self, event: Event) -> None:
        """Keep `event`."""
        self._events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind: `ErrorHandled`, `RetryScheduled`, `ExecutionSucceeded`, ..."""
        return [event for event in self._events if isinstance(event, kind)]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)
