"""The audit log's recipient: what seals data keys to its public half and opens them by the private one.

HPKE (RFC 9180) with HKDF-SHA256 and AES-256-GCM. The key encapsulation is X25519, or ML-KEM-768 combined with
X25519, which holds as long as either of the two does; the length of a key tells which. The hybrid's private
key is the 64-byte seed of ML-KEM-768 and 32 bytes of X25519, its public key 1184 and 32 bytes.
"""

from __future__ import annotations

import os
from enum import StrEnum
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from techdeck_tasks.keyring.keyset import KEY_BYTES

_SEED_BYTES, _MLKEM_PUBLIC_BYTES = 64, 1184

PublicKey = X25519PublicKey | MLKEM768X25519PublicKey
PrivateKey = X25519PrivateKey | MLKEM768X25519PrivateKey


class RecipientAlgorithm(StrEnum):
    """How data keys are sealed to readers of the audit log."""

    X25519 = "x25519"
    MLKEM768_X25519 = "mlkem768-x25519"


def _suite(kem: KEM) -> Suite:
    return Suite(kem, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


_CLASSIC, _HYBRID = _suite(KEM.X25519), _suite(KEM.MLKEM768_X25519)


def new_private_key(algorithm: RecipientAlgorithm) -> bytes:
    """Return a fresh private key: 32 bytes, or 96 of the hybrid. Any random bytes are one."""
    return os.urandom(KEY_BYTES if algorithm is RecipientAlgorithm.X25519 else _SEED_BYTES + KEY_BYTES)


def public_half(private_key: bytes) -> bytes:
    """Return the public key of a private one."""
    if len(private_key) == KEY_BYTES:
        return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    seed, scalar = private_key[:_SEED_BYTES], private_key[_SEED_BYTES:]
    mlkem = MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    return mlkem + X25519PrivateKey.from_private_bytes(scalar).public_key().public_bytes_raw()


def seal_to(public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Return `plaintext` sealed to `public_key` and bound to `info`."""
    return (_CLASSIC if len(public_key) == KEY_BYTES else _HYBRID).encrypt(
        plaintext, _public(public_key), info
    )


def open_with(private_key: bytes, sealed: bytes, info: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        InvalidTag: it was changed, or is bound to other `info` or another key.
    """
    return (_CLASSIC if len(private_key) == KEY_BYTES else _HYBRID).decrypt(
        sealed, _private(private_key), info
    )


@lru_cache(maxsize=64)
def _public(key: bytes) -> PublicKey:
    if len(key) == KEY_BYTES:
        return X25519PublicKey.from_public_bytes(key)
    mlkem = MLKEM768PublicKey.from_public_bytes(key[:_MLKEM_PUBLIC_BYTES])
    return MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(key[_MLKEM_PUBLIC_BYTES:]))


@lru_cache(maxsize=64)
def _private(key: bytes) -> PrivateKey:
    if len(key) == KEY_BYTES:
        return X25519PrivateKey.from_private_bytes(key)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(key[:_SEED_BYTES])
    return MLKEM768X25519PrivateKey(mlkem, X25519PrivateKey.from_private_bytes(key[_SEED_BYTES:]))
