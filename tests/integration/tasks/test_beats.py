"""Two beats side by side, and a worker."""

from __future__ import annotations

from typing import Any

from worker_site import Site, make_sample, wait_until

SENT, RUN = "test:beat:sent", "test:beat:run"
MESSAGES = 16


def test_of_two_beats_each_slot_is_run_once(own_site: Site) -> None:
    worker = own_site.start_worker("ticking", 2, app="beat_app")
    worker.wait_ready()
    for name in ("first", "second"):
        schedule = str(own_site.folder / f"schedule-{name}")
        own_site.start(name, "-A", "beat_app", "beat", "--schedule", schedule, "-l", "INFO")
    client: Any = make_sample(own_site).redis
    wait_until(lambda: client.llen(SENT) >= MESSAGES, "both beats sent", 60)
    sent, run = client.llen(SENT), client.llen(RUN)
    # Half of the messages; at the ends, and where a busy machine delays one, a slot more or less.
    assert sent / 2 - 3 <= run <= sent / 2 + 3
    assert all(beat.alive for beat in own_site.workers)
