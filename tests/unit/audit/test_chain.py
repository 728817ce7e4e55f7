from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from techdeck_tasks.audit.proof.chain import Head, hash_row

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
DIGEST = hashlib.sha256(b"content").digest()


def test_two_writers_begin_and_go_on_differently() -> None:
    one, other = Head.genesis("audit@a"), Head.genesis("audit@b")
    assert one.row_hash != other.row_hash
    assert one.next(DIGEST, NOW).row_hash != other.next(DIGEST, NOW).row_hash


def test_a_head_counts_its_rows() -> None:
    head = Head.genesis("a").next(DIGEST, NOW).next(DIGEST, NOW)
    assert (head.writer_id, head.seq) == ("a", 2)


@pytest.mark.parametrize(
    "other",
    [
        hash_row(b"\1" * 32, b"a", 1, 5, DIGEST),
        hash_row(b"\0" * 32, b"b", 1, 5, DIGEST),
        hash_row(b"\0" * 32, b"a", 2, 5, DIGEST),
        hash_row(b"\0" * 32, b"a", 1, 6, DIGEST),
        hash_row(b"\0" * 32, b"a", 1, 5, bytes(32)),
    ],
)
def test_a_row_hash_covers_predecessor_writer_number_time_and_content(other: bytes) -> None:
    assert hash_row(b"\0" * 32, b"a", 1, 5, DIGEST) != other


def test_the_time_counts_to_the_microsecond_whatever_its_zone() -> None:
    head = Head.genesis("a")
    local = NOW.astimezone(tz=None)
    assert head.next(DIGEST, NOW) == head.next(DIGEST, local)
    assert head.next(DIGEST, NOW) != head.next(DIGEST, NOW + timedelta(microseconds=1))


def test_numbers_that_somebody_forged_are_hashed_and_stop_nothing() -> None:
    assert len(hash_row(bytes(32), b"a", -1, 1 << 64, DIGEST)) == 32


def test_the_hash_of_a_row_stays_what_it_is_for_ever() -> None:
    head = Head.genesis("audit@host").next(DIGEST, NOW)
    assert head.row_hash.hex() == "cacdfd5be188431dc401aa2347dfed57a26e74c7f08b2a21d1dc6419dbd222ea"
