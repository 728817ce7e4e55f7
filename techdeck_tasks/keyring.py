"""Keys in files, and the symmetric cipher of messages and pipeline definitions.

Three folders, so that a process holds no more than its role needs:

    keys_dir          message.json             AES-256 keys of Celery messages, results, stored definitions
                      blind-index.json         HMAC keys that make user and subject searchable, not stored
                      audit-public.json        the public half of the audit log's recipient key
                      checkpoint-public.json   the public half of the key that signs the audit log's heads
    reader_keys_dir   audit-private.json       the private half; only who reads the audit log has it
    signing_keys_dir  checkpoint-private.json  the private half; only audit workers have it

A key file is JSON ``{"active": id, "keys": {id: base64}}``. New keys are added and become active; old ones
stay to open what they sealed. Files must belong to their reader alone (mode 0600).
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from techdeck_tasks.errors import EncryptionError

MESSAGE_KEYS = "message.json"
BLIND_INDEX_KEYS = "blind-index.json"
AUDIT_PUBLIC_KEYS = "audit-public.json"
AUDIT_PRIVATE_KEYS = "audit-private.json"
CHECKPOINT_PUBLIC_KEYS = "checkpoint-public.json"
CHECKPOINT_PRIVATE_KEYS = "checkpoint-private.json"

KEY_BYTES = 32
NONCE_BYTES = 12
MAX_KEY_ID_BYTES = 64
_ALGORITHM = "AES-256-GCM"


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of one purpose by id, one of them active."""

    active: str
    keys: Mapping[str, bytes] = field(repr=False)

    @property
    def active_key(self) -> bytes:
        """The key that seals from now on."""
        return self.keys[self.active]

    def key(self, key_id: str) -> bytes:
        """Return the key `key_id`.

        Raises:
            EncryptionError: this process does not hold it.
        """
        try:
            return self.keys[key_id]
        except KeyError:
            raise EncryptionError(
                f"key {key_id!r} is not in this key ring (it has {', '.join(sorted(self.keys))}); "
                "add the key file that has it"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file.

        Raises:
            EncryptionError: the file is missing, readable by others, or malformed.
        """
        text = _read_private(path)
        try:
            document = json.loads(text)
            # Also refuses what JSON can spell and UTF-8 cannot.
            json.dumps(document, ensure_ascii=False).encode()
            keys = {str(k): base64.b64decode(v, validate=True) for k, v in document["keys"].items()}
            loaded = cls(active=str(document["active"]), keys=keys)
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            raise EncryptionError(
                f'key file {path} is malformed; it must be {{"active": id, "keys": {{id: base64}}}}'
            ) from None
        for key_id, key in keys.items():
            if len(key) != KEY_BYTES or not 0 < len(key_id.encode()) <= MAX_KEY_ID_BYTES:
                raise EncryptionError(
                    f"key {key_id!r} in {path} must be {KEY_BYTES} bytes, its id 1 to {MAX_KEY_ID_BYTES}"
                )
        if loaded.active not in keys:
            raise EncryptionError(f"key file {path} names the active key {loaded.active!r}, which it lacks")
        return loaded

    def save(self, path: Path) -> None:
        """Write the key file, readable by its owner alone; replaces it atomically, and is on disk after."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {
            "active": self.active,
            "keys": {key_id: base64.b64encode(key).decode() for key_id, key in self.keys.items()},
        }
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            with _opened_folder(path.parent) as folder:
                os.fsync(folder)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


def _read_private(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise EncryptionError(f"key file {path} is open to others (mode {mode:03o}); chmod 600 it")
            return file.read()
    except FileNotFoundError:
        raise EncryptionError(
            f"key file {path} is missing; make one with 'techdeck keys generate', or mount it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EncryptionError(f"key file {path} cannot be read: {type(error).__name__}") from None


def key_id_of(public_key: bytes) -> str:
    """Return the id of a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def generate_keys(keys_dir: Path, reader_keys_dir: Path, signing_keys_dir: Path) -> list[Path]:
    """Make the key files that are missing, and return them. Existing files stay as they are.

    Several processes may do so at once: one makes the files, the others find them.

    Raises:
        EncryptionError: a public key has no private half here: a new one would not match it. Or a key file
            is malformed or readable by others.
    """
    keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _opened_folder(keys_dir) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        made = []
        for path in (keys_dir / MESSAGE_KEYS, keys_dir / BLIND_INDEX_KEYS):
            if not path.exists():
                key_id = secrets.token_hex(8)
                KeySet(key_id, {key_id: secrets.token_bytes(KEY_BYTES)}).save(path)
                made.append(path)
        recipient = _Pair(keys_dir / AUDIT_PUBLIC_KEYS, reader_keys_dir / AUDIT_PRIVATE_KEYS)
        made += _generate_pair(recipient, _public_of_recipient)
        signer = _Pair(keys_dir / CHECKPOINT_PUBLIC_KEYS, signing_keys_dir / CHECKPOINT_PRIVATE_KEYS)
        return made + _generate_pair(signer, _public_of_signer)


class _Pair(NamedTuple):
    public: Path
    private: Path


def _public_of_recipient(private_key: bytes) -> bytes:
    return private_key_of(private_key).public_key().public_bytes_raw()


def _public_of_signer(private_key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def _generate_pair(files: _Pair, public_of: Callable[[bytes], bytes]) -> list[Path]:
    public, private = files
    made = []
    if not private.exists():
        if public.exists():
            raise EncryptionError(
                f"{public} exists without {private}; restore the missing half from its backup"
            )
        # Any 32 random bytes are a private key of X25519 and of Ed25519.
        key = secrets.token_bytes(KEY_BYTES)
        key_id = key_id_of(public_of(key))
        # The private half first: a public half alone would seal rows that nobody can ever read.
        KeySet(key_id, {key_id: key}).save(private)
        made.append(private)
    halves = KeySet.load(private)
    public_keys = {key_id: public_of(key) for key_id, key in halves.keys.items()}
    if not public.exists():
        KeySet(halves.active, public_keys).save(public)
        made.append(public)
    elif any(public_keys.get(key_id) != key for key_id, key in KeySet.load(public).keys.items()):
        raise EncryptionError(f"{public} and {private} are no pair; restore them from the same backup")
    return made


@dataclass(frozen=True, slots=True)
class Cipher:
    """Authenticated encryption under a ring of keys (AES-256-GCM, a random 96-bit nonce a message).

    A sealed blob is ``version (1) | length of key id (1) | key id | nonce (12) | ciphertext and tag``. With
    random nonces a key must not seal more than 2**32 blobs (NIST SP 800-38D, 8.3): rotate before.
    """

    keys: KeySet

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


def public_key_of(key: bytes) -> X25519PublicKey:
    """Return the HPKE public key of 32 raw bytes."""
    return X25519PublicKey.from_public_bytes(key)


def private_key_of(key: bytes) -> X25519PrivateKey:
    """Return the HPKE private key of 32 raw bytes."""
    return X25519PrivateKey.from_private_bytes(key)
