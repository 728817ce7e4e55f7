from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from techdeck_tasks.audit.event import AuditEvent
from techdeck_tasks.audit.sealing import SealedEvent, Sealer
from techdeck_tasks.audit.writing.stream import MAX_SEALED_KEY_BYTES, pack, unpack
from techdeck_tasks.errors import ValidationError


@pytest.fixture
def sealed(sealer: Sealer, new_event: Callable[..., AuditEvent]) -> SealedEvent:
    return sealer.seal(new_event())


def test_a_payload_unpacks_to_what_was_sealed(sealed: SealedEvent) -> None:
    assert unpack(pack(sealed)) == sealed


@pytest.mark.parametrize("cut", [0, 5, 11, 12, 40, -1])
def test_a_payload_cut_short_is_refused(cut: int, sealed: SealedEvent) -> None:
    with pytest.raises(ValidationError):
        unpack(pack(sealed)[:cut])


def test_a_payload_with_something_behind_it_is_refused(sealed: SealedEvent) -> None:
    with pytest.raises(ValidationError):
        unpack(pack(sealed) + b"?")


@pytest.mark.parametrize("recipient", ["", "é", "nul\0", "x" * 65])
def test_a_payload_that_names_no_recipient_is_refused(recipient: str, sealed: SealedEvent) -> None:
    key = dataclasses.replace(sealed.data_key, recipient_id=recipient)
    with pytest.raises(ValidationError, match="recipient"):
        unpack(pack(dataclasses.replace(sealed, data_key=key)))


@pytest.mark.parametrize("sealed_key", [b"", bytes(MAX_SEALED_KEY_BYTES + 1)], ids=len)
def test_a_payload_without_a_data_key_is_refused(sealed_key: bytes, sealed: SealedEvent) -> None:
    key = dataclasses.replace(sealed.data_key, sealed_key=sealed_key)
    with pytest.raises(ValidationError, match="data key"):
        unpack(pack(dataclasses.replace(sealed, data_key=key)))


@pytest.mark.parametrize("encoded", [b"", b"TDAR"])
def test_a_payload_without_a_record_is_refused(encoded: bytes, sealed: SealedEvent) -> None:
    with pytest.raises(ValidationError, match="not canonical"):
        unpack(pack(dataclasses.replace(sealed, encoded=encoded)))
