"""What anybody who reaches the broker may put into a queue."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from worker_site import Sample, WorkerProcess, wait_until

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.runtime import runtime_of
from techdeck_tasks.tasks.messaging import _AAD, _BOUND, CONTENT_TYPE
from techdeck_tasks.tasks.quarantine import KEYS, QuarantinedMessage

CANARY = "canary-9d1f-poison"
POISON_ID = str(uuid.uuid4())
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None, _BOUND: ["sample.ok", POISON_ID]}
ARGUMENTS = [[CANARY], {}, EMBED]


def _encrypted(sample: Sample, payload: Any) -> bytes:
    return runtime_of(sample.app).cipher.seal(json.dumps(payload).encode(), _AAD)


def _envelope(body: bytes, content_type: str = CONTENT_TYPE, task: Any = "sample.ok", **headers: Any) -> Any:
    task_id = POISON_ID
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "binary",
        "content-type": content_type,
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0, **headers},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "sample"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def _soon() -> str:
    return (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()


def _changed(envelope: dict[str, Any], **parts: Any) -> bytes:
    return json.dumps(envelope | parts).encode()


def _items(sample: Sample) -> dict[str, bytes]:
    good = _encrypted(sample, ARGUMENTS)
    other_key = Cipher(KeySet("other", {"other": b"x" * 32}))
    tampered = bytearray(good)
    tampered[-1] ^= 1
    json_body = json.dumps(ARGUMENTS).encode()
    return {
        "another key": _changed(_envelope(other_key.seal(json_body, _AAD))),
        "a changed byte": _changed(_envelope(bytes(tampered))),
        "plain JSON": _changed(_envelope(json_body, "application/json")),
        "pickle": _changed(_envelope(pickle.dumps(ARGUMENTS), "application/x-python-serialize")),
        "plain JSON under our content type": _changed(_envelope(json_body)),
        "two elements": _changed(_envelope(_encrypted(sample, ARGUMENTS[:2]))),
        "no list": _changed(_envelope(_encrypted(sample, 7))),
        "unknown compression": _changed(_envelope(good, compression="application/x-none")),
        "an impossible ETA": _changed(_envelope(good, eta=CANARY)),
        "an ETA that is no text": _changed(_envelope(good, eta={"a": 1})),
        "no task in the headers": _changed(_envelope(json_body, "application/json"), headers={"id": CANARY}),
        "headers that are a list": _changed(_envelope(good), headers=[CANARY]),
        "a task name that is a list": _changed(_envelope(good, task=[CANARY])),
        "limits that are none": _changed(_envelope(good, timelimit=CANARY)),
        "limits that are none, later": _changed(_envelope(good, timelimit=CANARY, eta=_soon())),
        "retries that are no number": _changed(_envelope(good, retries=CANARY)),
        "stamps that are none": _changed(_envelope(good, stamped_headers=[[CANARY]], stamps=5)),
        "no properties": _changed({"body": CANARY, "headers": {}}),
        "not base64": _changed(_envelope(good), body="%" + CANARY),
        "not JSON": f"{{{CANARY}".encode(),
        "not UTF-8": b"\xff\xfe" + CANARY.encode(),
        "a JSON number": b"17",
        "a JSON list": json.dumps([CANARY]).encode(),
        "deep JSON": b"[" * 100_000,
        "nothing": b"",
    }


def test_every_poison_is_quarantined_sealed_and_the_worker_works_on(
    sample: Sample, worker: WorkerProcess
) -> None:
    sample.redis.delete(*KEYS)
    quarantine = runtime_of(sample.app).quarantine
    items = _items(sample)
    for number, (what, item) in enumerate(items.items(), start=1):
        sample.redis.lpush("sample", item)
        wait_until(lambda number=number: len(quarantine.list(100)) == number, f"{what!r} in quarantine")
        assert sample.run("ok", number) == number, what
    assert all(CANARY.encode() not in sealed for sealed in _raw(sample))
    kept = [message.body for message in quarantine.list(100)]
    assert sum(CANARY.encode() in body for body in kept) >= 4
    assert CANARY not in worker.output()
    wait_until(lambda: not sample.redis.hlen("unacked"), "everything acknowledged")


def test_an_unregistered_task_is_quarantined_and_fails_for_who_waits(
    sample: Sample, worker: WorkerProcess
) -> None:
    sample.redis.delete(*KEYS)
    result = sample.app.send_task("sample.unknown", args=[CANARY], queue="sample")
    assert "NotRegistered" in type(sample.failure_of(result)).__name__
    [message] = wait_until(runtime_of(sample.app).quarantine.list, "quarantined")
    assert message.reason == "unregistered task 'sample.unknown'"
    assert CANARY not in worker.output()


@pytest.mark.parametrize(
    "payload",
    [[[], 5, EMBED], [[], {}, 5], [5, {}, EMBED], [[], {"x": 1}, None]],
    ids=["kwargs", "embed", "args", "none"],
)
def test_arguments_of_the_wrong_shape_fail_the_task_and_not_the_worker(
    sample: Sample, worker: WorkerProcess, payload: Any
) -> None:
    envelope = _envelope(_encrypted(sample, payload))
    sample.redis.lpush("sample", json.dumps(envelope))
    sample.run("ok")
    assert worker.alive
    wait_until(
        lambda: (
            sample.app.AsyncResult(envelope["headers"]["id"]).state == "FAILURE"
            or runtime_of(sample.app).quarantine.list(1)
        ),
        "failed or quarantined",
    )


def test_a_body_is_refused_under_another_tasks_name_or_id(sample: Sample) -> None:
    sample.redis.delete(*KEYS)
    quarantine = runtime_of(sample.app).quarantine
    good = _encrypted(sample, [[CANARY], {}, {**EMBED, _BOUND: ["sample.ok", "bound-1"]}])
    unbound = _encrypted(sample, [[CANARY], {}, {}])
    forged = [
        _envelope(good, task="sample.add", id="bound-1"),
        _envelope(good, id="another"),
        _envelope(unbound, id="bound-1"),
    ]
    for number, envelope in enumerate(forged, start=1):
        sample.redis.lpush("sample", json.dumps(envelope))
        wait_until(lambda number=number: quarantine.count() == number, "in quarantine")
    assert {message.reason for message in quarantine.list()} == {"body sealed for another task"}
    sample.redis.lpush("sample", json.dumps(_envelope(good, id="bound-1")))
    assert sample.app.AsyncResult("bound-1").get(timeout=30) == CANARY


def test_a_message_that_has_become_readable_is_replayed_and_one_that_cannot_be_stays(sample: Sample) -> None:
    sample.redis.delete(*KEYS)
    quarantine = runtime_of(sample.app).quarantine

    def found(item: Any) -> QuarantinedMessage:
        sample.redis.lpush("sample", item)
        [message] = wait_until(quarantine.list, "in quarantine")
        return message  # type: ignore[no-any-return]  # wait_until returns anything

    unbound = _envelope(_encrypted(sample, [["from an older sender"], {}, {}]), id="older-sender")
    message = found(json.dumps(unbound))
    quarantine.replay(sample.app, message.message_id)
    assert sample.app.AsyncResult("older-sender").get(timeout=30) == "from an older sender"
    assert quarantine.count() == 0

    stolen = found(json.dumps(_envelope(_encrypted(sample, ARGUMENTS), task="sample.add")))
    with pytest.raises(ValidationError, match="another task"):
        quarantine.replay(sample.app, stolen.message_id)
    assert quarantine.take(stolen.message_id) == stolen

    junk = found(b"{" + CANARY.encode())
    assert junk.queue == "sample"
    with pytest.raises(ValidationError, match="drop it"):
        quarantine.replay(sample.app, junk.message_id)
    assert quarantine.get(junk.message_id[:6]) == junk


def test_an_item_that_cannot_be_quarantined_now_is_not_lost(sample: Sample, worker: WorkerProcess) -> None:
    sample.redis.delete(*KEYS)
    # Storing fails where the key is of another type.
    sample.redis.set(KEYS[0], "in the way")
    sample.redis.lpush("sample", f"{{{CANARY}".encode())
    wait_until(lambda: "quarantine unavailable" in worker.output(), "storing failed")
    assert sample.run("ok", "meanwhile") == "meanwhile"
    sample.redis.delete(*KEYS)
    [kept] = wait_until(runtime_of(sample.app).quarantine.list, "in quarantine")
    assert kept.body == f"{{{CANARY}".encode()


def _raw(sample: Sample) -> list[bytes]:
    raw: Any = sample.redis.hvals(KEYS[0])
    return list(raw)
