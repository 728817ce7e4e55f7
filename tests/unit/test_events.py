from __future__ import annotations

from datetime import UTC, datetime

import pytest

from techdeck_tasks.events import BreakerTransition, Event, Listeners


class Recorder:
    def __init__(self) -> None:
        self.heard: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.heard.append(event)


class Broken:
    def on_event(self, event: Event) -> None:
        raise RuntimeError("listener is broken")


EVENT = BreakerTransition(
    name="lab",
    old_state="closed",
    new_state="open",
    epoch=1,
    reason="5 failures",
    occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_every_listener_hears_of_an_event() -> None:
    first, second = Recorder(), Recorder()
    listeners = Listeners([first])
    listeners.add(second)

    listeners.on_event(EVENT)

    assert first.heard == second.heard == [EVENT]


def test_a_broken_listener_is_logged_and_counted_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    listeners = Listeners([Broken(), recorder])

    listeners.on_event(EVENT)

    assert recorder.heard == [EVENT]
    assert listeners.failures == 1
    assert "Broken failed on BreakerTransition" in caplog.text
