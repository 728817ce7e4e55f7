"""A set of keys of one purpose, and its file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring.wrapping import key_wrapping

KEY_BYTES = 32
MAX_KEY_ID_BYTES = 64
_LENGTHS = frozenset({KEY_BYTES, 96, 1216})
"""32: symmetric, X25519 and Ed25519 keys; 96 and 1216: private and public ML-KEM-768 with X25519."""


class MissingKeyError(EncryptionError):
    """This process does not hold the key that something is sealed with."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys of one purpose by id, one of them active.

    Attributes:
        active: the id of the key that seals.
        keys: by id, in the clear.
        wrapped_by: the key service that encrypts them in their file; None: they lie there in the clear.
    """

    active: str
    keys: Mapping[str, bytes] = field(repr=False)
    wrapped_by: str | None = None

    @property
    def active_key(self) -> bytes:
        """The key that seals from now on."""
        return self.keys[self.active]

    def key(self, key_id: str) -> bytes:
        """Return the key `key_id`.

        Raises:
            MissingKeyError: this process does not hold it.
        """
        try:
            return self.keys[key_id]
        except KeyError:
            raise MissingKeyError(
                f"key {key_id!r} is not in this key ring (it has {', '.join(sorted(self.keys))}); "
                "add the key file that has it"
            ) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file.

        Raises:
            EncryptionError: the file is missing, readable by others, or malformed, or its key service
                refuses to open it.
            ServiceUnavailableError: its key service cannot be reached.
        """
        text = _read_private(path)
        try:
            document = json.loads(text)
            # Also refuses what JSON can spell and UTF-8 cannot.
            json.dumps(document, ensure_ascii=False).encode()
            keys = {str(k): base64.b64decode(v, validate=True) for k, v in document["keys"].items()}
            wrapped_by = document.get("wrapped_by")
            active = str(document["active"])
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            raise EncryptionError(
                f'key file {path} is malformed; it must be {{"active": id, "keys": {{id: base64}}}}'
            ) from None
        if wrapped_by is not None:
            wrapping = key_wrapping(str(wrapped_by))
            keys = {key_id: wrapping.unwrap(key, key_id) for key_id, key in keys.items()}
        for key_id, key in keys.items():
            if len(key) not in _LENGTHS or not 0 < len(key_id.encode()) <= MAX_KEY_ID_BYTES:
                raise EncryptionError(
                    f"key {key_id!r} in {path} must be {KEY_BYTES} bytes (96 or 1216 of ML-KEM), "
                    f"its id 1 to {MAX_KEY_ID_BYTES}"
                )
        if active not in keys:
            raise EncryptionError(f"key file {path} names the active key {active!r}, which it lacks")
        return cls(active, keys, None if wrapped_by is None else str(wrapped_by))

    def save(self, path: Path) -> None:
        """Write the key file, readable by its owner alone; replaces it atomically, and is on disk after."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        stored = self.keys
        document: dict[str, object] = {"active": self.active}
        if self.wrapped_by is not None:
            wrapping = key_wrapping(self.wrapped_by)
            stored = {key_id: wrapping.wrap(key, key_id) for key_id, key in self.keys.items()}
            document["wrapped_by"] = self.wrapped_by
        document["keys"] = {key_id: base64.b64encode(key).decode() for key_id, key in stored.items()}
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            with opened_folder(path.parent) as folder:
                os.fsync(folder)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Yield a descriptor of the folder `path`, to lock it or to bring a rename in it to the disk."""
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


class FollowedKeys:
    """The keys of a file that is read again when a key is asked for that was not in it.

    So a process that runs on goes on opening what another seals with a key made meanwhile. It seals with the
    key that was active when the file was read last.

    Args:
        path: a key file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_of = _version_of(path)
        self._keys = KeySet.load(path)

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return self._keys.active

    @property
    def active_key(self) -> bytes:
        """The key that seals."""
        return self._keys.active_key

    def key(self, key_id: str) -> bytes:
        """Return the key `key_id`.

        Raises:
            EncryptionError: neither this process nor the file has it.
        """
        if key_id not in self._keys.keys and (version := _version_of(self._path)) != self._read_of:
            self._keys, self._read_of = KeySet.load(self._path), version
        return self._keys.key(key_id)


def _version_of(path: Path) -> tuple[int, int] | None:
    """Return what tells one content of a file from another: files are replaced, never written over."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
