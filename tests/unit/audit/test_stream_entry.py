from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import Sealer
from techdeck_tasks.audit.stream import MAX_SEALED_KEY_BYTES, Entry
from techdeck_tasks.errors import ValidationError


@pytest.fixture
def entry(sealer: Sealer, new_event: Callable[..., AuditEvent]) -> Entry:
    return Entry.of(sealer.seal(new_event()))


def test_an_entry_survives_stream_and_spool(entry: Entry) -> None:
    fields = {name.encode(): value for name, value in entry.fields().items()}
    assert Entry.from_fields(fields) == entry
    assert Entry.from_bytes(entry.to_bytes()) == entry


def test_an_entry_opens_to_what_was_sealed(sealer: Sealer, new_event: Callable[..., AuditEvent]) -> None:
    sealed = sealer.seal(new_event())
    assert Entry.of(sealed).open() == sealed


@pytest.mark.parametrize("cut", [0, 5, 11, 12, 40, -1])
def test_a_payload_that_is_no_entry_is_refused(cut: int, entry: Entry) -> None:
    with pytest.raises(ValidationError):
        Entry.from_bytes(entry.to_bytes()[:cut])


def test_a_payload_with_something_behind_it_is_refused(entry: Entry) -> None:
    with pytest.raises(ValidationError):
        Entry.from_bytes(entry.to_bytes() + b"?")


@pytest.mark.parametrize(
    "changes",
    [
        {"record": b""},
        {"record": b"TDAR"},
        {"recipient_id": b""},
        {"recipient_id": b"\xff"},
        {"recipient_id": b"nul\0"},
        {"recipient_id": b"x" * 65},
        {"sealed_key": b""},
        {"sealed_key": bytes(MAX_SEALED_KEY_BYTES + 1)},
    ],
    ids=str,
)
def test_a_malformed_entry_is_refused(changes: dict[str, bytes], entry: Entry) -> None:
    with pytest.raises(ValidationError):
        dataclasses.replace(entry, **changes).open()
