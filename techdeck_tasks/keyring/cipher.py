"""The symmetric cipher of messages, stored definitions and letters."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring.keyset import FollowedKeys, KeySet

NONCE_BYTES = 12
_ALGORITHM = "AES-256-GCM"


@dataclass(frozen=True, slots=True)
class Cipher:
    """Authenticated encryption under a ring of keys (AES-256-GCM, a random 96-bit nonce a message).

    A sealed blob is ``version (1) | length of key id (1) | key id | nonce (12) | ciphertext and tag``. With
    random nonces a key must not seal more than 2**32 blobs (NIST SP 800-38D, 8.3): rotate before.
    """

    keys: KeySet | FollowedKeys

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt `plaintext`; `aad` is authenticated and must be given again to open."""
        header = _header(self.keys.active)
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + _aead(self.keys.active_key).encrypt(nonce, plaintext, header + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what `seal` made.

        Raises:
            EncryptionError: it is malformed, was changed, belongs to another `aad`, or its key is not held.
        """
        if len(sealed) < 2 or sealed[0] != 1:  # noqa: PLR2004 - the two header bytes
            raise EncryptionError("sealed data has no known format", encryption_type=_ALGORITHM)
        end = 2 + sealed[1]
        nonce_end = end + NONCE_BYTES
        try:
            key = self.keys.key(sealed[2:end].decode("utf-8"))
            return _aead(key).decrypt(sealed[end:nonce_end], sealed[nonce_end:], sealed[:end] + aad)
        except (InvalidTag, ValueError):
            raise EncryptionError(
                "sealed data was changed, or belongs elsewhere: its authentication tag does not match",
                encryption_type=_ALGORITHM,
            ) from None


@lru_cache(maxsize=64)
def _header(key_id: str) -> bytes:
    raw = key_id.encode()
    return struct.pack("BB", 1, len(raw)) + raw


@lru_cache(maxsize=64)
def _aead(key: bytes) -> AESGCM:
    return AESGCM(key)
