"""Key files over their life: rotated, activated, destroyed, wrapped by a key service."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from cryptography.exceptions import InvalidTag
from moto import mock_aws

from techdeck_tasks.errors import EncryptionError, ValidationError
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    MESSAGE_KEYS,
    Cipher,
    FollowedKeys,
    KeyFolders,
    KeySet,
    Purpose,
    RecipientAlgorithm,
    open_with,
    public_half,
    seal_to,
)
from techdeck_tasks.keyring.recipient import new_private_key
from techdeck_tasks.keyring.wrapping import key_wrapping

AAD = b"aad"


def _folders(parent: Path) -> KeyFolders:
    return KeyFolders(parent / "producer", parent / "reader", parent / "signer")


@pytest.fixture
def folders(tmp_path: Path) -> KeyFolders:
    folders = _folders(tmp_path)
    folders.generate()
    return folders


# -- rotation --------------------------------------------------------------------------------------


def test_what_was_sealed_before_a_rotation_opens_after_it(folders: KeyFolders) -> None:
    path = folders.producer / MESSAGE_KEYS
    sealed = Cipher(KeySet.load(path)).seal(b"text", AAD)
    new = folders.add(Purpose.MESSAGE, activate=True)
    assert KeySet.load(path).active == new
    assert Cipher(KeySet.load(path)).open(sealed, AAD) == b"text"


def test_a_running_process_opens_what_another_sealed_with_a_newer_key(folders: KeyFolders) -> None:
    path = folders.producer / MESSAGE_KEYS
    running = Cipher(FollowedKeys(path))
    before = running.keys.active
    folders.add(Purpose.MESSAGE, activate=True)
    assert running.open(Cipher(KeySet.load(path)).seal(b"text", AAD), AAD) == b"text"
    assert running.keys.active != before


def test_an_unknown_key_is_refused_and_the_file_not_read_for_nothing(folders: KeyFolders) -> None:
    running = FollowedKeys(folders.producer / MESSAGE_KEYS)
    (folders.producer / MESSAGE_KEYS).chmod(0o644)  # reading it would be refused
    with pytest.raises(EncryptionError, match="not in this key ring"):
        running.key("unknown")


def test_a_key_added_for_later_seals_nothing_until_it_is_activated(folders: KeyFolders) -> None:
    path = folders.producer / MESSAGE_KEYS
    old = KeySet.load(path).active
    new = folders.add(Purpose.MESSAGE, activate=False)
    assert KeySet.load(path).active == old
    folders.activate(Purpose.MESSAGE, new)
    assert KeySet.load(path).active == new


def test_rotating_the_audit_key_keeps_both_halves_a_pair(folders: KeyFolders) -> None:
    new = folders.add(Purpose.AUDIT, activate=True)
    public = KeySet.load(folders.producer / AUDIT_PUBLIC_KEYS)
    private = KeySet.load(folders.reader / AUDIT_PRIVATE_KEYS)
    assert public.active == private.active == new
    assert public.keys == {key_id: public_half(key) for key_id, key in private.keys.items()}
    assert folders.generate() == []


@pytest.mark.parametrize("purpose", list(Purpose))
def test_the_active_key_is_not_destroyed(folders: KeyFolders, purpose: Purpose) -> None:
    active = next(keys.active for found, _, keys in folders.sets() if found is purpose)
    with pytest.raises(ValidationError, match="rotate first"):
        folders.destroy(purpose, active)


def test_a_destroyed_key_opens_nothing_any_more(folders: KeyFolders) -> None:
    path = folders.producer / MESSAGE_KEYS
    old = KeySet.load(path).active
    sealed = Cipher(KeySet.load(path)).seal(b"text", AAD)
    folders.add(Purpose.MESSAGE, activate=True)
    folders.destroy(Purpose.MESSAGE, old)
    with pytest.raises(EncryptionError, match="not in this key ring"):
        Cipher(KeySet.load(path)).open(sealed, AAD)


def test_signatures_of_a_destroyed_signer_can_still_be_verified(folders: KeyFolders) -> None:
    old = KeySet.load(folders.producer / CHECKPOINT_PUBLIC_KEYS).active
    folders.add(Purpose.CHECKPOINT, activate=True)
    folders.destroy(Purpose.CHECKPOINT, old)
    assert old in KeySet.load(folders.producer / CHECKPOINT_PUBLIC_KEYS).keys
    assert folders.generate() == []


def test_a_recipient_whose_private_half_is_gone_is_no_longer_sealed_to(folders: KeyFolders) -> None:
    old = KeySet.load(folders.producer / AUDIT_PUBLIC_KEYS).active
    folders.add(Purpose.AUDIT, activate=True)
    folders.destroy(Purpose.AUDIT, old)
    assert old not in KeySet.load(folders.producer / AUDIT_PUBLIC_KEYS).keys


# -- recipients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(RecipientAlgorithm))
def test_only_the_private_half_and_the_same_info_open(algorithm: RecipientAlgorithm) -> None:
    private, other = new_private_key(algorithm), new_private_key(algorithm)
    sealed = seal_to(public_half(private), b"data key", b"info")
    assert open_with(private, sealed, b"info") == b"data key"
    for key, info in ((other, b"info"), (private, b"other")):
        with pytest.raises(InvalidTag):
            open_with(key, sealed, info)


def test_hybrid_keys_live_in_the_same_files(tmp_path: Path) -> None:
    folders = replace(_folders(tmp_path), algorithm=RecipientAlgorithm.MLKEM768_X25519)
    folders.generate()
    public = KeySet.load(folders.producer / AUDIT_PUBLIC_KEYS)
    private = KeySet.load(folders.reader / AUDIT_PRIVATE_KEYS)
    assert open_with(private.active_key, seal_to(public.active_key, b"x", b""), b"") == b"x"


# -- wrapped by AWS KMS ----------------------------------------------------------------------------


@pytest.fixture
def kms_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    key_wrapping.cache_clear()
    with mock_aws():
        yield boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]
    key_wrapping.cache_clear()


def test_wrapped_files_hold_no_key_and_open_by_kms(tmp_path: Path, kms_key: str) -> None:
    folders = replace(_folders(tmp_path), wrapped_by=f"aws-kms:{kms_key}")
    folders.generate()
    for _, path, keys in folders.sets():
        document = json.loads(path.read_text())
        if keys.wrapped_by is not None:
            assert document["wrapped_by"] == f"aws-kms:{kms_key}"
    path = folders.producer / MESSAGE_KEYS
    keys = KeySet.load(path)
    stored = json.loads(path.read_text())
    assert all(key.hex() not in json.dumps(stored) for key in keys.keys.values())
    folders.add(Purpose.MESSAGE, activate=True)
    assert keys.active in KeySet.load(path).keys


def test_a_key_service_without_a_region_is_told_in_one_line(
    tmp_path: Path, kms_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    KeySet("a", {"a": os.urandom(32)}, f"aws-kms:{kms_key}").save(path)
    key_wrapping.cache_clear()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(EncryptionError, match="set AWS_REGION"):
        KeySet.load(path)


def test_a_wrapped_key_under_another_id_is_refused(tmp_path: Path, kms_key: str) -> None:
    path = tmp_path / "keys.json"
    KeySet("a", {"a": os.urandom(32), "b": os.urandom(32)}, f"aws-kms:{kms_key}").save(path)
    document = json.loads(path.read_text())
    document["keys"]["a"], document["keys"]["b"] = document["keys"]["b"], document["keys"]["a"]
    path.write_text(json.dumps(document))
    with pytest.raises(EncryptionError, match="AWS KMS refused to decrypt"):
        KeySet.load(path)


def test_an_unknown_key_service_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(EncryptionError, match="use aws-kms:KEY"):
        KeySet("a", {"a": os.urandom(32)}, "vault:x").save(tmp_path / "keys.json")
