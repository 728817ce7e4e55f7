"""The canonical encoding of audit records: one record, one spelling."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from techdeck_tasks.audit.canonical import COLUMN_NAMES, HEAD, AuditRecord, decode, encode
from techdeck_tasks.audit.event import check_event_id, new_event_id, time_of
from techdeck_tasks.errors import ValidationError

OPTIONAL = (
    "outcome",
    "error_id",
    "error_code",
    "task_name",
    "task_id",
    "attempt",
    "pipeline_id",
    "stage",
    "user_index",
    "subject_index",
)

LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=256)
int32s = st.integers(-(1 << 31), (1 << 31) - 1)
blobs = st.binary(max_size=400)
event_ids = st.integers(0, LAST_MS).map(lambda ms: new_event_id(ms * 1_000_000))
near_the_end = st.integers(LAST_MS - 3, LAST_MS + 3).map(lambda ms: new_event_id(ms * 1_000_000).bytes)

records = st.builds(
    AuditRecord,
    event_id=event_ids,
    tenant=texts,
    producer_id=st.uuids(),
    producer_seq=st.integers(1, (1 << 63) - 1),
    event_type=texts,
    severity=texts,
    service=texts,
    operation=texts,
    retention_days=int32s,
    hipaa_related=st.booleans(),
    hipaa_notify=st.booleans(),
    key_id=st.uuids(),
    sealed_document=blobs,
    outcome=st.none() | texts,
    error_id=st.none() | texts,
    error_code=st.none() | texts,
    task_name=st.none() | texts,
    task_id=st.none() | texts,
    attempt=st.none() | int32s,
    pipeline_id=st.none() | texts,
    stage=st.none() | texts,
    user_index=st.none() | st.binary(max_size=64),
    subject_index=st.none() | st.binary(max_size=64),
)


@given(records)
def test_a_record_survives_its_canonical_bytes(record: AuditRecord) -> None:
    assert decode(encode(record)) == record


@given(records, st.data())
def test_a_changed_byte_gives_no_record_or_another_one(record: AuditRecord, data: st.DataObject) -> None:
    encoded = bytearray(encode(record))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    assert _decoded(bytes(encoded)) != record


@given(records, st.data())
def test_whatever_decodes_is_the_one_spelling_of_its_record(record: AuditRecord, data: st.DataObject) -> None:
    encoded = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(encoded)))
        end = data.draw(st.integers(start, min(len(encoded), start + 8)))
        encoded[start:end] = data.draw(st.binary(max_size=8))
    changed = bytes(encoded)
    decoded = _decoded(changed)
    assert decoded is None or encode(decoded) == changed


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    assert _decoded(data) is None
    assert _decoded(HEAD + data) is None


@given(records, st.data())
def test_a_truncated_or_extended_record_is_refused(record: AuditRecord, data: st.DataObject) -> None:
    encoded = encode(record)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    assert _decoded(encoded[:cut]) is None
    assert _decoded(encoded + data.draw(st.binary(min_size=1, max_size=9))) is None


@given(records, records)
def test_two_records_never_share_their_bytes(one: AuditRecord, other: AuditRecord) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@pytest.mark.parametrize("name", OPTIONAL)
@given(record=records)
def test_absent_and_empty_are_different(name: str, record: AuditRecord) -> None:
    empty: Any = {"attempt": 0}.get(name, b"" if name.endswith("_index") else "")
    nothing: dict[str, Any] = {name: None}
    absent = dataclasses.replace(record, **nothing)
    present = dataclasses.replace(record, **{name: empty})
    assert encode(absent) != encode(present)
    assert decode(encode(absent)) == absent
    assert decode(encode(present)) == present


@given(records, st.sampled_from(COLUMN_NAMES), st.sampled_from(COLUMN_NAMES))
def test_a_value_cannot_move_to_another_column(record: AuditRecord, one: str, other: str) -> None:
    first, second = getattr(record, one), getattr(record, other)
    if type(first) is type(second) and not isinstance(first, uuid.UUID) and first != second:
        # A number of 64 bits does not even fit into a column of 32.
        assume(not isinstance(first, int) or max(first, second) < 1 << 31)
        swapped = dataclasses.replace(record, **{one: second, other: first})
        assert encode(swapped) != encode(record)


@given(st.one_of(st.binary(min_size=16, max_size=16), event_ids.map(lambda made: made.bytes), near_the_end))
def test_bytes_are_an_event_id_exactly_where_they_hold_a_time(raw: bytes) -> None:
    try:
        time_of(uuid.UUID(bytes=raw))
    except ValidationError:
        with pytest.raises(ValueError, match="no id"):
            check_event_id(raw)
    else:
        check_event_id(raw)


def _decoded(data: bytes) -> AuditRecord | None:
    try:
        return decode(data)
    except ValidationError:
        return None
