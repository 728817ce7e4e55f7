from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring import (
    AUDIT_PRIVATE_KEYS,
    AUDIT_PUBLIC_KEYS,
    BLIND_INDEX_KEYS,
    CHECKPOINT_PRIVATE_KEYS,
    CHECKPOINT_PUBLIC_KEYS,
    MESSAGE_KEYS,
    Cipher,
    KeySet,
    generate_keys,
    public_half,
)

KEY_TEXT = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def _key_set(*key_ids: str) -> KeySet:
    return KeySet(key_ids[-1], {key_id: secrets.token_bytes(32) for key_id in key_ids})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "message.json"


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_saved_key_file_is_read_back_and_its_owners_alone(path: Path) -> None:
    keys = _key_set("old", "new")
    keys.save(path)
    assert KeySet.load(path) == keys
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_saving_replaces_the_file_as_a_whole_and_leaves_nothing_beside_it(path: Path) -> None:
    _key_set("old").save(path)
    with path.open("rb") as before:
        keys = _key_set("new")
        keys.save(path)
        assert json.loads(before.read())["active"] == "old"
    assert KeySet.load(path) == keys
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_save_that_fails_leaves_the_old_file_and_nothing_beside_it(path: Path) -> None:
    keys = _key_set("old")
    keys.save(path)
    broken = KeySet("x", {"x": "no bytes"})  # type: ignore[dict-item]  # to fail while it is written
    with pytest.raises(TypeError):
        broken.save(path)
    assert KeySet.load(path) == keys
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777, 0o601])
def test_a_key_file_open_to_others_is_refused_with_the_remedy(mode: int, path: Path) -> None:
    _key_set("k").save(path)
    path.chmod(mode)
    with pytest.raises(EncryptionError, match="chmod 600"):
        KeySet.load(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_of_its_owner_alone_is_read(mode: int, path: Path) -> None:
    _key_set("k").save(path)
    path.chmod(mode)
    assert KeySet.load(path).active == "k"


def test_a_missing_key_file_names_the_command_that_makes_it(path: Path) -> None:
    with pytest.raises(EncryptionError, match="techdeck keys generate"):
        KeySet.load(path)


def test_a_folder_in_place_of_a_key_file_is_told(path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    path.chmod(0o700)
    with pytest.raises(EncryptionError, match="cannot be read"):
        KeySet.load(path)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"active": "a"}',
        '{"keys": {}}',
        '{"active": "a", "keys": []}',
        '{"active": "a", "keys": {"a": 1}}',
        '{"active": "a", "keys": {"a": "no base64!"}}',
        '{"active": "a", "keys": {"a": "c2hvcnQ="}}',
        f'{{"active": "b", "keys": {{"a": "{KEY_TEXT}"}}}}',
        f'{{"active": "", "keys": {{"": "{KEY_TEXT}"}}}}',
        f'{{"active": "\\ud800", "keys": {{"\\ud800": "{KEY_TEXT}"}}}}',
        f'{{"active": "{"x" * 65}", "keys": {{"{"x" * 65}": "{KEY_TEXT}"}}}}',
    ],
)
def test_a_malformed_key_file_is_refused_by_its_name(document: str, path: Path) -> None:
    with pytest.raises(EncryptionError, match=r"message\.json"):
        KeySet.load(_write(path, document))


def test_a_key_file_that_is_no_text_is_refused(path: Path) -> None:
    _write(path, "").write_bytes(b"\xff\xfe")
    with pytest.raises(EncryptionError, match="cannot be read"):
        KeySet.load(path)


def test_no_refusal_shows_a_key(path: Path) -> None:
    _write(path, f'{{"active": "b", "keys": {{"a": "{KEY_TEXT}"}}}}')
    with pytest.raises(EncryptionError) as caught:
        KeySet.load(path)
    assert KEY_TEXT not in f"{caught.value!r} {caught.value.to_dict()}"
    assert "\\x" not in repr(_key_set("k"))


def test_an_unknown_key_id_names_those_at_hand_and_the_remedy() -> None:
    with pytest.raises(EncryptionError, match=r"'lost'.*it has a, b.*add the key file"):
        _key_set("b", "a").key("lost")


# -- the files of an installation ------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    return tmp_path / "producer", tmp_path / "reader", tmp_path / "signer"


def test_generating_makes_every_key_file_once(folders: tuple[Path, Path, Path]) -> None:
    made = generate_keys(*folders)
    assert sorted(path.name for path in made) == sorted(
        [
            MESSAGE_KEYS,
            BLIND_INDEX_KEYS,
            AUDIT_PUBLIC_KEYS,
            AUDIT_PRIVATE_KEYS,
            CHECKPOINT_PUBLIC_KEYS,
            CHECKPOINT_PRIVATE_KEYS,
        ]
    )
    content = {path: path.read_bytes() for path in made}
    assert generate_keys(*folders) == []
    assert {path: path.read_bytes() for path in made} == content


def test_the_private_half_is_with_the_reader_alone(folders: tuple[Path, Path, Path]) -> None:
    producer, reader, _ = folders
    generate_keys(*folders)
    private = KeySet.load(reader / AUDIT_PRIVATE_KEYS)
    held = [KeySet.load(path) for path in producer.iterdir()]
    assert private.active_key not in [key for keys in held for key in keys.keys.values()]
    public = KeySet.load(producer / AUDIT_PUBLIC_KEYS)
    assert public_half(private.active_key) == public.active_key
    assert public.active == private.active


def test_a_missing_private_half_is_not_made_anew(folders: tuple[Path, Path, Path]) -> None:
    _producer, reader, _ = folders
    generate_keys(*folders)
    (reader / AUDIT_PRIVATE_KEYS).unlink()
    with pytest.raises(EncryptionError, match="restore the missing half"):
        generate_keys(*folders)


def test_a_missing_public_half_is_made_from_the_private_one(folders: tuple[Path, Path, Path]) -> None:
    producer, _reader, _ = folders
    generate_keys(*folders)
    public = KeySet.load(producer / AUDIT_PUBLIC_KEYS)
    (producer / AUDIT_PUBLIC_KEYS).unlink()
    assert generate_keys(*folders) == [producer / AUDIT_PUBLIC_KEYS]
    assert KeySet.load(producer / AUDIT_PUBLIC_KEYS) == public


def test_halves_of_two_pairs_are_refused(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    producer, _reader, _ = folders
    generate_keys(*folders)
    generate_keys(tmp_path / "other", tmp_path / "another", tmp_path / "third")
    (tmp_path / "other" / AUDIT_PUBLIC_KEYS).replace(producer / AUDIT_PUBLIC_KEYS)
    with pytest.raises(EncryptionError, match="no pair"):
        generate_keys(*folders)


def test_several_generators_at_once_make_one_matching_pair(folders: tuple[Path, Path, Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: generate_keys(*folders), range(8)))
    assert sorted(map(len, made)) == [0] * 7 + [6]
    assert generate_keys(*folders) == []


# -- the cipher ------------------------------------------------------------------------------------


def test_a_sealed_blob_opens_under_its_aad_only() -> None:
    cipher = Cipher(_key_set("k"))
    sealed = cipher.seal(b"secret", b"here")
    assert cipher.open(sealed, b"here") == b"secret"
    with pytest.raises(EncryptionError, match="changed, or belongs elsewhere"):
        cipher.open(sealed, b"there")


def test_the_key_id_cannot_be_moved_into_the_aad() -> None:
    key = secrets.token_bytes(32)
    sealed = Cipher(KeySet("kx", {"kx": key})).seal(b"secret", b"y")
    moved = b"\x01\x01k" + sealed[4:]
    with pytest.raises(EncryptionError):
        Cipher(KeySet("k", {"k": key})).open(moved, b"xy")


def test_sealing_the_same_twice_gives_two_blobs() -> None:
    cipher = Cipher(_key_set("k"))
    assert cipher.seal(b"same", b"") != cipher.seal(b"same", b"")


def test_after_rotation_the_new_key_seals_and_the_old_one_still_opens() -> None:
    old = _key_set("old")
    before = Cipher(old).seal(b"before", b"")
    rotated = Cipher(KeySet("new", {**old.keys, "new": secrets.token_bytes(32)}))
    assert rotated.open(before, b"") == b"before"
    after = rotated.seal(b"after", b"")
    assert rotated.open(after, b"") == b"after"
    with pytest.raises(EncryptionError, match="'new' is not in this key ring"):
        Cipher(old).open(after, b"")


def test_every_changed_byte_of_a_blob_is_noticed() -> None:
    cipher = Cipher(_key_set("key-1"))
    sealed = cipher.seal(b"secret", b"aad")
    for position in range(len(sealed)):
        changed: Any = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(EncryptionError):
            cipher.open(bytes(changed), b"aad")


def test_every_truncation_of_a_blob_is_noticed() -> None:
    cipher = Cipher(_key_set("key-1"))
    sealed = cipher.seal(b"", b"")
    for length in range(len(sealed)):
        with pytest.raises(EncryptionError):
            cipher.open(sealed[:length], b"")


def test_garbage_is_no_sealed_blob() -> None:
    cipher = Cipher(_key_set("k"))
    for _ in range(50):
        with pytest.raises(EncryptionError):
            cipher.open(os.urandom(40), b"")
