from __future__ import annotations

import dataclasses
import hashlib
import struct
import uuid

import pytest

from techdeck_tasks.audit.canonical import (
    COLUMN_NAMES,
    MAX_INDEX_BYTES,
    MAX_RECORD_BYTES,
    MAX_TEXT_BYTES,
    AuditRecord,
    decode,
    encode,
)
from techdeck_tasks.errors import ValidationError

RECORD = AuditRecord(
    event_id=uuid.UUID("018bcfe5-687b-7123-8123-456789abcdef"),
    tenant="clinic",
    producer_id=uuid.UUID(int=2),
    producer_seq=3,
    event_type="error_handling",
    severity="high",
    service="lab",
    operation="import",
    retention_days=2190,
    hipaa_related=True,
    hipaa_notify=False,
    key_id=uuid.UUID(int=4),
    sealed_document=b"\0\1\2",
    error_code="PIPELINE_ERROR",
    attempt=0,
    stage="",
)


def test_the_bytes_of_a_record_stay_what_they_are_for_ever() -> None:
    # A change here makes every row ever written fail its verification.
    assert hashlib.sha256(encode(RECORD)).hexdigest() == (
        "f34aeede6148400c57c077f3eff0020bfec8f6c53d47252287ace550099c193e"
    )


def test_a_record_begins_with_magic_version_and_number_of_columns() -> None:
    assert encode(RECORD)[:6] == b"TDAR\x02\x17"


def test_unicode_is_kept_as_it_is_and_never_normalised() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    one, other = (dataclasses.replace(RECORD, service=name) for name in (composed, decomposed))
    assert encode(one) != encode(other)
    assert decode(encode(other)).service == decomposed


NULL = b"\xff" * 4


def _column(raw: bytes) -> bytes:
    return struct.pack(">i", len(raw)) + raw


def test_a_column_is_its_length_and_its_bytes_and_null_is_not_empty() -> None:
    tail = _column(b"PIPELINE_ERROR") + 2 * NULL + _column(bytes(4)) + NULL + _column(b"") + 2 * NULL
    assert encode(RECORD).endswith(tail)


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"TDAS" + encode(RECORD)[4:], id="another magic"),
        pytest.param(b"TDAR\x01" + encode(RECORD)[5:], id="another version"),
        pytest.param(b"TDAR\x02\x18" + encode(RECORD)[6:] + NULL, id="a column without a value too many"),
        pytest.param(encode(RECORD) + NULL, id="a column that is not counted"),
        pytest.param(encode(RECORD)[:-4], id="a column too few"),
        pytest.param(encode(RECORD)[:-4] + b"\xff\xff\xff\xfe", id="a length below that of NULL"),
        pytest.param(encode(RECORD)[:-4] + struct.pack(">i", 5), id="a length beyond the end"),
    ],
)
def test_any_other_spelling_is_refused(spelling: bytes) -> None:
    with pytest.raises(ValidationError, match="not canonical"):
        decode(spelling)


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": uuid.UUID(int=5)},
        {"event_id": uuid.UUID(int=((1 << 48) - 1) << 80 | 7 << 76 | 2 << 62)},
        {"producer_seq": 0},
        {"producer_seq": -1},
        {"service": "nul\0"},
        {"stage": "\0"},
        {"task_id": "x" * (MAX_TEXT_BYTES + 1)},
        {"user_index": bytes(MAX_INDEX_BYTES + 1)},
    ],
)
def test_what_postgresql_or_the_chain_could_not_hold_is_refused(changes: dict[str, object]) -> None:
    encoded = encode(dataclasses.replace(RECORD, **changes))  # type: ignore[arg-type]  # any column
    with pytest.raises(ValidationError, match="not canonical"):
        decode(encoded)


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_that_is_no_utf8_is_refused(raw: bytes) -> None:
    columns = encode(RECORD).replace(_column(b"lab"), _column(raw))
    with pytest.raises(ValidationError):
        decode(columns)


@pytest.mark.parametrize("raw", [b"", b"\2", b"\1\1"])
def test_a_truth_value_has_two_spellings_only(raw: bytes) -> None:
    with pytest.raises(ValidationError):
        decode(encode(RECORD).replace(_column(b"\1"), _column(raw)))


def test_a_record_beyond_the_limit_is_refused_before_it_is_read() -> None:
    encoded = encode(dataclasses.replace(RECORD, sealed_document=bytes(MAX_RECORD_BYTES)))
    with pytest.raises(ValidationError):
        decode(encoded)


def test_a_record_without_a_mandatory_column_is_refused() -> None:
    with pytest.raises(ValidationError):
        decode(encode(RECORD)[:6] + len(COLUMN_NAMES) * NULL)


def test_the_refusal_says_nothing_of_the_content() -> None:
    with pytest.raises(ValidationError) as caught:
        decode(encode(RECORD)[:6] + _column(b"jane@example.org"))
    assert "jane" not in repr(caught.value.to_dict())
