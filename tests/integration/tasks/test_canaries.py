"""Strings planted wherever data goes; they must come out nowhere but at who holds the keys."""

from __future__ import annotations

import base64
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import chain, chord, group
from worker_site import Sample, WorkerProcess, wait_until

CANARY = f"canary{uuid.uuid4().hex[:12]}"
"""Shapeless: no pattern can know it."""
SECRET = f"password=hunter{uuid.uuid4().hex[:12]}"


@contextmanager
def monitor(url: str) -> Iterator[bytearray]:
    """Record what every client sends to Redis."""
    parts = urlsplit(url)
    heard = bytearray()
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(f"AUTH {parts.password}\r\nMONITOR\r\n".encode())
        thread = threading.Thread(target=_listen, args=(connection, heard))
        thread.start()
        wait_until(lambda: heard.count(b"+OK") >= 2, "monitoring")
        try:
            yield heard
        finally:
            # The reading side alone: Redis, still sending, answers the end of the other with a reset.
            connection.shutdown(socket.SHUT_RD)
            thread.join()


def _listen(connection: socket.socket, heard: bytearray) -> None:
    connection.settimeout(None)
    while chunk := connection.recv(1 << 16):
        heard.extend(chunk)


def forms(text: str) -> list[bytes]:
    """Return `text` as it reads in the clear and inside base64, however it is aligned there."""
    raw = text.encode()
    found = [raw]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        # The characters at both ends depend on the neighbours.
        found.append(encoded[(0, 2, 3)[offset] : len(encoded) - 4])
    return found


def stored(sample: Sample) -> bytes:
    """Return everything in the database, keys and values."""
    client = sample.redis
    parts: list[Any] = []
    for key in client.scan_iter():
        kind: Any = client.type(key)
        read = {
            b"string": lambda key=key: client.get(key),
            b"list": lambda key=key: client.lrange(key, 0, -1),
            b"hash": lambda key=key: client.hgetall(key),
            b"set": lambda key=key: client.smembers(key),
            b"zset": lambda key=key: client.zrange(key, 0, -1),
            b"stream": lambda key=key: client.xrange(key),
        }
        parts += [key, read[kind]()]
    return repr(parts).encode()


@pytest.fixture
def traffic(sample: Sample) -> Iterator[bytearray]:
    with monitor(sample.site.url) as heard:
        yield heard


def test_what_is_searched_for_would_be_found() -> None:
    for padding in range(4):
        hidden = base64.b64encode(b"x" * padding + f'{{"a": "{CANARY}"}}'.encode())
        assert any(form in hidden for form in forms(CANARY))


def test_no_canary_is_in_redis_on_the_wire_in_events_or_logs(
    sample: Sample, worker: WorkerProcess, traffic: bytearray
) -> None:
    ok, add, leaky = sample.task("ok"), sample.task("add"), sample.task("own_error")
    flows = [
        ok.delay({"name": CANARY}),
        chain(ok.s(CANARY), ok.s(), ok.si(CANARY))(),
        group(ok.s(CANARY) for _ in range(2))(),
        chord([ok.s([CANARY]), ok.s([CANARY])])(ok.s()),
        sample.task("flaky").apply_async((1,), link=ok.si(CANARY), link_error=ok.si(CANARY)),
        sample.task("retries_with").delay(CANARY, name=CANARY),
        sample.task("killed").delay(times=1, slow_hook_s=0, note=CANARY),
        add.apply_async((CANARY,), throw=False),
        leaky.delay(f"row of {CANARY}: {SECRET}"),
        sample.task("manual_bare").delay(CANARY),
        sample.task("leaky").delay(CANARY, name=CANARY),
        sample.app.send_task("sample.unknown", args=[CANARY], queue="sample"),
    ]
    for flow in flows:
        flow.get(timeout=30, propagate=False)
    waiting = ok.apply_async((CANARY,), kwargs={}, countdown=40)
    wait_until(lambda: waiting.id in worker.output(), "the countdown received")
    running = sample.task("nap").apply_async((CANARY,))
    wait_until(lambda: sample.redis.exists(f"test:starts:{CANARY}"), "started")

    replies = _inspections(sample, running.id, waiting.id)

    sample.app.control.revoke(waiting.id)
    sample.redis.set(f"test:go:{CANARY}", 1)
    running.get(timeout=30)
    # The sample task's own notes are named by its argument; they are no part of this.
    sample.redis.delete(f"test:go:{CANARY}", f"test:starts:{CANARY}")
    sent = b"\n".join(line for line in bytes(traffic).splitlines() if b'"test:' not in line)

    assert b"LPUSH" in sent
    assert b"PUBLISH" in sent
    for where, content in {
        "Redis": stored(sample),
        "traffic": sent,
        "inspect": replies.encode(),
    }.items():
        for form in [*forms(CANARY), *forms(SECRET), *forms(SECRET.partition("=")[2])]:
            assert form not in content, where
    log = worker.output()
    assert SECRET not in log
    assert SECRET.partition("=")[2] not in log
    assert CANARY not in "\n".join(line for line in log.splitlines() if "row of" not in line)


def test_events_tell_monitors_the_type_and_code_of_an_error_and_nothing_more(sample: Sample) -> None:
    seen: list[dict[str, Any]] = []
    with sample.app.connection_for_read() as connection:
        receiver = sample.app.events.Receiver(connection, handlers={"*": seen.append})
        with receiver.consumer_context(wakeup=False) as (channel, _, _):
            _drain(channel)
            results = [sample.task("own_error").delay(CANARY), sample.task("foreign").delay()]
            for result in results:
                result.get(timeout=30, propagate=False)
            wanted = {result.id for result in results}

            def told() -> bool:
                _drain(channel)
                return wanted <= {event["uuid"] for event in _failures(seen)}

            wait_until(told, "both failures told")
    failed = {event["uuid"]: event for event in _failures(seen)}
    assert failed[results[0].id]["exception"] == "PatientError([masked])"
    assert "error_code='RETRY_EXHAUSTED'" in failed[results[1].id]["exception"]
    assert "sample_app.py" in failed[results[0].id]["traceback"]
    assert CANARY not in repr(seen)
    received = next(event for event in seen if event["type"] == "task-received")
    assert received["args"] == received["kwargs"] == "[masked]"


def _failures(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "task-failed"]


def _drain(connection: Any) -> None:
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.1)


def _inspections(sample: Sample, running: str, waiting: str) -> str:
    inspect = sample.app.control.inspect(["one@test"], timeout=2)
    told = wait_until(
        lambda: {"active": inspect.active(), "scheduled": inspect.scheduled()}, "inspect answers"
    )
    told |= {"reserved": inspect.reserved(), "query": inspect.query_task([running, waiting])}
    text = repr(told)
    assert running in text
    assert waiting in text
    assert "[masked]" in text
    return text
