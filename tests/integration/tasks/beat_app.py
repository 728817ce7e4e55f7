"""What two beats and their worker are started with: ``celery -A beat_app``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sample_app import make_app

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.runtime import runtime_of
from techdeck_tasks.tasks.turns import once_a_slot

PERIOD = timedelta(seconds=1)
SENT, RUN = "test:beat:sent", "test:beat:run"

app = make_app()


def _redis() -> Any:
    return runtime_of(app).redis


@app.task(name="beat.tick")
def tick() -> None:
    client = _redis()
    client.rpush(SENT, "tick")
    once_a_slot("beat.tick", PERIOD, lambda: client.rpush(RUN, client.time()[0]), _redis, SystemClock())()


app.conf.beat_schedule = {"tick": {"task": "beat.tick", "schedule": PERIOD}}
