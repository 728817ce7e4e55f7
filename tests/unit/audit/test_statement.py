from __future__ import annotations

import secrets
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from techdeck_tasks.audit.proof.chain import Head
from techdeck_tasks.audit.proof.checkpoint import Checkpoint, hash_checkpoint
from techdeck_tasks.audit.proof.statement import SignatureCheck, SignatureState, Signer
from techdeck_tasks.audit.proof.tombstone import ChainRun, Tombstone
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import KeySet

NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
CHECKPOINT = Checkpoint(
    seq=7,
    prev_hash=hash_checkpoint(None),
    made_at=NOW,
    rows=12,
    heads=(Head("audit@ä", 5, b"\1" * 32), Head("audit@b", 7, b"\2" * 32)),
    partitions=("202604", "202605"),
)
TOMBSTONE = Tombstone(
    month=date(2020, 5, 1),
    rows=3,
    runs=(ChainRun("audit@ä", 1, 3, b"\0" * 32, b"\1" * 32),),
    producers=((UUID(int=5), 2),),
    archive_digest=b"\3" * 32,
    made_at=NOW,
    made_by="anna",
)


@pytest.fixture
def private_keys() -> KeySet:
    return KeySet("signer", {"signer": secrets.token_bytes(32)})


@pytest.fixture
def check(private_keys: KeySet) -> SignatureCheck:
    public = Ed25519PrivateKey.from_private_bytes(private_keys.active_key).public_key().public_bytes_raw()
    return SignatureCheck(KeySet("signer", {"signer": public}))


def test_what_was_signed_is_what_is_read() -> None:
    assert Checkpoint.decode(CHECKPOINT.encode()) == CHECKPOINT
    assert Tombstone.decode(TOMBSTONE.encode()) == TOMBSTONE


@pytest.mark.parametrize("size", range(0, len(CHECKPOINT.encode()), 7))
def test_a_statement_cut_short_is_refused(size: int) -> None:
    with pytest.raises(ValidationError):
        Checkpoint.decode(CHECKPOINT.encode()[:size])


def test_a_statement_with_more_behind_it_or_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        Checkpoint.decode(CHECKPOINT.encode() + b"\0")
    with pytest.raises(ValidationError):
        Checkpoint.decode(TOMBSTONE.encode())
    with pytest.raises(ValidationError):
        Tombstone.decode(CHECKPOINT.encode())


def test_a_signature_holds_for_its_bytes_and_its_key_alone(
    private_keys: KeySet, check: SignatureCheck
) -> None:
    signed = Signer(private_keys).sign(CHECKPOINT.encode())
    assert check.state(signed) is SignatureState.VALID
    other = Signer(private_keys).sign(TOMBSTONE.encode())
    assert check.state(type(signed)(signed.statement, "signer", other.signature)) is SignatureState.FORGED
    assert check.state(type(signed)(signed.statement, "signer", b"")) is SignatureState.FORGED
    unknown = type(signed)(signed.statement, "somebody", signed.signature)
    assert check.state(unknown) is SignatureState.UNKNOWN_KEY
