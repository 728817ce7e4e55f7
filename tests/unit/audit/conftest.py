from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from techdeck_tasks.audit.sealing import Opener, Sealer
from techdeck_tasks.keyring import KeySet, key_id_of


@pytest.fixture
def private_keys() -> KeySet:
    pair = X25519PrivateKey.generate()
    key_id = key_id_of(pair.public_key().public_bytes_raw())
    return KeySet(key_id, {key_id: pair.private_bytes_raw()})


@pytest.fixture
def recipients(private_keys: KeySet) -> KeySet:
    pair = X25519PrivateKey.from_private_bytes(private_keys.active_key)
    return KeySet(private_keys.active, {private_keys.active: pair.public_key().public_bytes_raw()})


@pytest.fixture
def blind_index_keys() -> KeySet:
    return KeySet("index", {"index": secrets.token_bytes(32)})


@pytest.fixture
def sealer(recipients: KeySet, blind_index_keys: KeySet) -> Sealer:
    return Sealer(recipients, blind_index_keys, "clinic")


@pytest.fixture
def opener(private_keys: KeySet) -> Opener:
    return Opener(private_keys)
