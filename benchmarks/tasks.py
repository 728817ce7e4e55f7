"""Throughput of `TechDeckTask` next to `celery.Task`: no-ops, and tasks that fail.

Two workers of one process each run side by side on an embedded Redis: one sends plain JSON, the other is
encrypted as `install` leaves it. Both have the same settings otherwise. In each round a queue is filled for
each kind of task in turn, then given to its worker and timed until it is empty and everything is
acknowledged. The ratios of one round are of the same minute of the same machine; their median is what counts.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import redis
from celery import Celery, Task

from techdeck_tasks.devservices import EmbeddedRedis
from techdeck_tasks.keyring import generate_keys
from techdeck_tasks.runtime import install
from techdeck_tasks.settings import load_settings
from techdeck_tasks.tasks.base import TechDeckTask

MESSAGES = 500
ROUNDS = 9
PLAIN = "TECHDECK_BENCH_PLAIN"
GOALS = {
    "no-op": 0.95,
    "no-op, encrypted": 0.90,
    "failing, classified, sealed and audited": 0.70,
    "the same, with its dead letter": None,
}


def make_app() -> Celery:
    """Return the application of the environment: plain JSON, or encrypted."""
    app = Celery("bench")
    install(app, load_settings())
    plain = os.environ.get(PLAIN) == "1"
    if plain:
        app.conf.update(
            task_serializer="json",
            result_serializer="json",
            accept_content=["json"],
            result_accept_content=["json"],
        )
    app.conf.update(task_queues=None, task_create_missing_queues=True, task_send_sent_event=False)
    app.conf.task_default_queue = "bench-plain" if plain else "bench-sealed"
    options: dict[str, Any] = {"shared": False}
    app.task(no_op, name="bare.no_op", base=Task, **options)
    app.task(no_op, name="techdeck.no_op", base=TechDeckTask, **options)
    app.task(fail, name="bare.fail", base=Task, **options)
    # Without its breaker, which would open at once and let the rest wait; and first without dead letters.
    app.task(fail, name="techdeck.fail", base=TechDeckTask, breaker=False, dead_letters=False, **options)
    app.task(fail, name="techdeck.fail_letter", base=TechDeckTask, breaker=False, **options)
    return app


def no_op(number: int) -> int:
    return number


def fail(number: int) -> None:  # noqa: ARG001 - called like the other one  # noqa: ARG001 - as no_op
    raise ValueError("row 7 of the batch has no date")


def main() -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis() as server:
        generate_keys(Path(folder, "producer"), Path(folder, "reader"), Path(folder, "signer"))
        with _worker(folder, server.url, "1") as plain, _worker(folder, server.url, "0") as sealed:
            _report([_round(plain, sealed, server.url) for _ in range(ROUNDS + 1)][1:])


def _round(plain: Celery, sealed: Celery, url: str) -> dict[str, float]:
    return {
        "bare": _drain(plain, "bare.no_op", url),
        "no-op": _drain(plain, "techdeck.no_op", url),
        "no-op, encrypted": _drain(sealed, "techdeck.no_op", url),
        "bare failing": _drain(plain, "bare.fail", url),
        "failing, classified, sealed and audited": _drain(plain, "techdeck.fail", url),
        "the same, with its dead letter": _drain(plain, "techdeck.fail_letter", url),
    }


def _drain(app: Celery, name: str, url: str) -> float:
    """Return the tasks a second of one worker."""
    queue = f"fill-{name}-{app.conf.task_default_queue}"
    for number in range(MESSAGES):
        app.tasks[name].apply_async((number,), queue=queue)
    destination = [f"{app.conf.task_default_queue}@bench"]
    with redis.Redis.from_url(url) as client:
        app.control.add_consumer(queue, destination=destination)
        while client.llen(queue) == MESSAGES:
            # A worker in the middle of a blocking read takes up to a second to hear of the queue.
            time.sleep(0.001)
        began = time.perf_counter()
        while client.llen(queue) or client.hlen("unacked"):
            time.sleep(0.002)
        took_s = time.perf_counter() - began
        app.control.cancel_consumer(queue, destination=destination, reply=True)
        client.delete("td:audit", queue)
    return MESSAGES / took_s


def _report(rounds: list[dict[str, float]]) -> None:
    print(f"{MESSAGES} tasks a round, median of {ROUNDS} rounds, one process")
    for base in ("bare", "bare failing"):
        print(f"  {base:42} {median(one[base] for one in rounds):8.0f} tasks/s")
    for name, goal in GOALS.items():
        base = "bare" if name.startswith("no-op") else "bare failing"
        ratio = median(one[name] / one[base] for one in rounds)
        verdict = "" if goal is None else f"   goal {goal:.2f}: {'met' if ratio >= goal else 'missed'}"
        print(
            f"  {name:42} {median(one[name] for one in rounds):8.0f} tasks/s   {ratio:.2f} of bare{verdict}"
        )


@contextmanager
def _worker(folder: str, url: str, plain: str) -> Iterator[Celery]:
    environment = {
        **os.environ,
        PLAIN: plain,
        "TECHDECK_REDIS_URL": url,
        "TECHDECK_KEYS_DIR": f"{folder}/producer",
        "TECHDECK_READER_KEYS_DIR": f"{folder}/reader",
        "TECHDECK_AUDIT_SPOOL_DIR": f"{folder}/spool",
        "TECHDECK_CONNECTION_RESET_DELAY_SECONDS": "0",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        app = make_app()
    finally:
        os.environ.clear()
        os.environ.update(before)
    node = f"{app.conf.task_default_queue}@bench"
    options = ["worker", "-c", "1", "-n", node, "-l", "WARNING", "--without-mingle", "--without-gossip"]
    program = f"from benchmarks.tasks import make_app; make_app().worker_main({options!r})"
    log = Path(folder, f"{node}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, "-c", program),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 30
            while not app.control.ping([node], timeout=0.5):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the worker did not start: {log.read_text()[-2000:]}")
            yield app
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
