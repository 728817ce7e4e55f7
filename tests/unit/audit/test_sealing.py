from __future__ import annotations

import dataclasses
import gc
import json
import os
import secrets
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from techdeck_tasks.audit.canonical import MAX_RECORD_BYTES, decode
from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import (
    BLIND_INDEX_BYTES,
    MAX_CLEAR_CHARS,
    MAX_MESSAGE_CHARS,
    Opener,
    SealedEvent,
    Sealer,
)
from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring import KeySet, key_id_of

# Newer Pythons warn of forking beside threads, which is what a Celery worker does.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

NewEvent = Callable[..., AuditEvent]


def _open(opener: Opener, sealed: SealedEvent) -> dict[str, Any]:
    return opener.open(decode(sealed.encoded), sealed.data_key)


def test_a_reader_with_the_private_key_gets_the_document_back(
    sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    document = {"message": "Patient über 90 \U0001f489", "details": {"rows": [1, None, True]}}
    assert _open(opener, sealer.seal(new_event(document=document))) == document


def test_neither_the_document_nor_an_identity_is_in_what_leaves_the_process(
    sealer: Sealer, new_event: NewEvent
) -> None:
    sealed = sealer.seal(
        new_event(document={"message": "plaintext-secret"}, user_id="user-jane", subject_id="mrn-4711")
    )
    out = sealed.encoded + sealed.data_key.sealed_key + repr(sealed).encode()
    for secret in (b"plaintext-secret", b"user-jane", b"mrn-4711"):
        assert secret not in out


@pytest.mark.parametrize("message", ["short", "x" * MAX_RECORD_BYTES])
def test_a_reader_learns_who_acted_and_whom_it_is_about(
    message: str, sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    event = new_event(document={"message": message}, user_id="user-jane", subject_id="mrn-4711")
    opened = _open(opener, sealer.seal(event))
    assert (opened["user_id"], opened["subject_id"]) == ("user-jane", "mrn-4711")


def test_a_document_cannot_pose_as_another_persons(
    sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    event = new_event(document={"message": "x", "user_id": "eve"}, user_id="user-jane")
    assert _open(opener, sealer.seal(event))["user_id"] == "user-jane"


def test_the_keys_of_a_producer_open_nothing(sealer: Sealer, recipients: KeySet, new_event: NewEvent) -> None:
    sealed = sealer.seal(new_event())
    with pytest.raises(EncryptionError, match="does not open"):
        _open(Opener(recipients), sealed)


def test_another_private_key_is_refused_with_the_remedy(sealer: Sealer, new_event: NewEvent) -> None:
    foreign = KeySet("foreign", {"foreign": secrets.token_bytes(32)})
    with pytest.raises(EncryptionError, match="add the key file that has it"):
        _open(Opener(foreign), sealer.seal(new_event()))


def test_a_document_opens_in_its_own_row_only(sealer: Sealer, opener: Opener, new_event: NewEvent) -> None:
    one, other = sealer.seal(new_event()), sealer.seal(new_event())
    moved = dataclasses.replace(other.record, sealed_document=one.record.sealed_document)
    with pytest.raises(EncryptionError, match=str(other.record.event_id)):
        opener.open(moved, other.data_key)


@pytest.mark.parametrize("part", ["tenant", "event_id", "key_id", "sealed_document"])
def test_a_document_is_bound_to_tenant_event_and_key(
    part: str, sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    sealed = sealer.seal(new_event())
    other: Any = {
        "tenant": "another",
        "event_id": new_event().event_id,
        "key_id": uuid.uuid4(),
        "sealed_document": sealed.record.sealed_document[:-1] + b"?",
    }[part]
    with pytest.raises(EncryptionError):
        opener.open(dataclasses.replace(sealed.record, **{part: other}), sealed.data_key)


@pytest.mark.parametrize(
    "changes", [{"tenant": "another"}, {"key_id": uuid.uuid4()}, {"sealed_key": b"short"}]
)
def test_a_data_key_is_bound_to_its_tenant_and_id(
    changes: dict[str, Any], sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    sealed = sealer.seal(new_event())
    with pytest.raises(EncryptionError):
        opener.open(sealed.record, dataclasses.replace(sealed.data_key, **changes))


def test_the_sealed_bytes_are_the_canonical_ones(sealer: Sealer, new_event: NewEvent) -> None:
    sealed = sealer.seal(new_event(attempt=2, stage="load", user_id="u"))
    assert decode(sealed.encoded) == sealed.record


def test_numbers_have_no_gaps_and_no_repeats_under_threads(sealer: Sealer, new_event: NewEvent) -> None:
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda _: sealer.seal(new_event()), range(800)))
    assert sorted(event.record.producer_seq for event in sealed) == list(range(1, 801))
    assert len({event.record.producer_id for event in sealed}) == 1
    assert len({event.record.sealed_document[:12] for event in sealed}) == 800


def test_an_event_that_cannot_be_sealed_leaves_no_gap(sealer: Sealer, new_event: NewEvent) -> None:
    bad = new_event()
    object.__setattr__(bad, "service", None)
    with pytest.raises(TypeError):
        sealer.seal(bad)
    assert sealer.seal(new_event()).record.producer_seq == 1


def test_a_data_key_is_changed_before_it_has_sealed_too_much(
    recipients: KeySet, blind_index_keys: KeySet, opener: Opener, new_event: NewEvent
) -> None:
    sealer = Sealer(recipients, blind_index_keys, "clinic", events_per_key=3)
    sealed = [sealer.seal(new_event()) for _ in range(7)]
    key_ids = [event.data_key.key_id for event in sealed]
    assert [key_ids.count(key_id) for key_id in dict.fromkeys(key_ids)] == [3, 3, 1]
    assert [event.record.producer_seq for event in sealed] == list(range(1, 8))
    assert all(_open(opener, event)["message"] for event in sealed)


def test_after_rotation_new_events_take_the_new_key_and_old_ones_still_open(
    recipients: KeySet, private_keys: KeySet, blind_index_keys: KeySet, new_event: NewEvent
) -> None:
    old = Sealer(recipients, blind_index_keys, "clinic").seal(new_event())
    pair = X25519PrivateKey.generate()
    public = pair.public_key().public_bytes_raw()
    key_id = key_id_of(public)
    rotated = KeySet(key_id, {**recipients.keys, key_id: public})
    new = Sealer(rotated, blind_index_keys, "clinic").seal(new_event())
    opener = Opener(KeySet(key_id, {**private_keys.keys, key_id: pair.private_bytes_raw()}))
    assert (old.data_key.recipient_id, new.data_key.recipient_id) == (recipients.active, key_id)
    assert _open(opener, old) == _open(opener, new)


def test_a_forked_child_is_a_producer_of_its_own(sealer: Sealer, opener: Opener, new_event: NewEvent) -> None:
    first = sealer.seal(new_event())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        sealed = sealer.seal(new_event())
        os.write(writer, json.dumps([sealed.encoded.hex(), sealed.data_key.sealed_key.hex()]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        encoded, sealed_key = (bytes.fromhex(text) for text in json.loads(pipe.read()))
    assert os.waitpid(child, 0)[1] == 0
    record = decode(encoded)
    assert record.producer_seq == 1
    assert record.producer_id != first.record.producer_id
    assert record.key_id != first.record.key_id
    key = dataclasses.replace(first.data_key, key_id=record.key_id, sealed_key=sealed_key)
    assert opener.open(record, key)["message"]
    after = sealer.seal(new_event())
    assert (after.record.producer_id, after.record.producer_seq) == (first.record.producer_id, 2)


def test_a_sealer_that_nobody_uses_is_let_go(recipients: KeySet, blind_index_keys: KeySet) -> None:
    sealer = Sealer(recipients, blind_index_keys, "let-go")
    del sealer
    gc.collect()
    assert not [kept for kept in gc.get_objects() if isinstance(kept, Sealer) and kept._tenant == "let-go"]


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", "nul \0 byte", "\udcff" * 300, "x" * 5000])
def test_any_text_survives_in_the_document_and_is_bounded_in_the_clear(
    text: str, sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    sealed = sealer.seal(
        new_event(service=text, operation=text, task_name=text, document={"message": text}, user_id=text)
    )
    record = decode(sealed.encoded)
    for kept in (record.service, record.operation, record.task_name):
        assert kept is not None
        assert 0 < len(kept) <= MAX_CLEAR_CHARS
        assert "\0" not in kept
    assert _open(opener, sealed)["message"] == text


@pytest.mark.parametrize("number", [(1 << 31) - 1, 1 << 31, 1 << 70])
def test_numbers_too_large_for_their_columns_are_bounded(
    number: int, sealer: Sealer, new_event: NewEvent
) -> None:
    record = decode(sealer.seal(new_event(attempt=number, retention_days=number)).encoded)
    assert (record.attempt, record.retention_days) == ((1 << 31) - 1, (1 << 31) - 1)


def test_a_huge_document_is_reduced_to_its_message_size_and_hash(
    sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    document = {"message": "m" * 5000, "details": "\ud800" * 600_000}
    sealed = sealer.seal(new_event(document=document))
    assert len(sealed.encoded) < MAX_RECORD_BYTES
    opened = _open(opener, sealed)
    assert opened["truncated"] is True
    assert opened["size_bytes"] > 600_000
    assert len(opened["sha256"]) == 64
    assert opened["message"] == "m" * MAX_MESSAGE_CHARS


class _Hostile:
    def __str__(self) -> str:
        raise OSError("no text")


def _circular() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    return circle


def _deep() -> dict[str, Any]:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"d": deep}
    return deep


@pytest.mark.parametrize(
    "details",
    [_circular(), _Hostile(), {("a", "b"): 1}, 10**5000, _deep()],
    ids=lambda value: type(value).__name__,
)
def test_a_document_that_is_no_json_keeps_its_message(
    details: Any, sealer: Sealer, opener: Opener, new_event: NewEvent
) -> None:
    opened = _open(opener, sealer.seal(new_event(document={"message": "kept", "details": details})))
    assert opened["message"] == "kept"
    assert opened["unwritable"]


def test_a_blind_index_is_stable_keyed_and_different_for_user_and_subject(
    sealer: Sealer, recipients: KeySet, blind_index_keys: KeySet
) -> None:
    index = sealer.blind_index("user", "jane")
    assert index is not None
    assert len(index) == BLIND_INDEX_BYTES
    again = Sealer(recipients, blind_index_keys, "clinic")
    other_tenant = Sealer(recipients, blind_index_keys, "practice")
    other_key = Sealer(recipients, KeySet("n", {"n": secrets.token_bytes(32)}), "clinic")
    assert again.blind_index("user", "jane") == index
    others = [
        sealer.blind_index("subject", "jane"),
        sealer.blind_index("user", "Jane"),
        other_tenant.blind_index("user", "jane"),
        other_key.blind_index("user", "jane"),
    ]
    assert index not in others
    assert sealer.blind_index("user", None) is None
    assert sealer.blind_index("user", "") is not None
