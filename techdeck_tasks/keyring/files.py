"""The key files of an installation: made once, listed, rotated, and destroyed key by key."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from techdeck_tasks.errors import EncryptionError, ValidationError
from techdeck_tasks.keyring.keyset import KEY_BYTES, KeySet, key_id_of, opened_folder
from techdeck_tasks.keyring.recipient import RecipientAlgorithm, new_private_key, public_half

MESSAGE_KEYS = "message.json"
BLIND_INDEX_KEYS = "blind-index.json"
AUDIT_PUBLIC_KEYS = "audit-public.json"
AUDIT_PRIVATE_KEYS = "audit-private.json"
CHECKPOINT_PUBLIC_KEYS = "checkpoint-public.json"
CHECKPOINT_PRIVATE_KEYS = "checkpoint-private.json"


class Purpose(StrEnum):
    """What a key is for."""

    MESSAGE = "message"
    BLIND_INDEX = "blind-index"
    AUDIT = "audit"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class KeyFolders:
    """Where the key files of an installation are.

    Attributes:
        producer: what every worker needs.
        reader: the private half of the audit log's recipient.
        signer: the private half of the checkpoints' signer.
        wrapped_by: the key service that new files of secret keys are encrypted by; None: none.
        algorithm: of new recipients of the audit log.
    """

    producer: Path
    reader: Path
    signer: Path
    wrapped_by: str | None = None
    algorithm: RecipientAlgorithm = RecipientAlgorithm.X25519

    def generate(self) -> list[Path]:
        """Make the key files that are missing, and return them. Existing files stay as they are.

        Several processes may do so at once: one makes the files, the others find them.

        Raises:
            EncryptionError: a public key has no private half here: a new one would not match it. Or a key
                file is malformed or readable by others.
        """
        with self._locked():
            made = []
            for purpose in (Purpose.MESSAGE, Purpose.BLIND_INDEX):
                path = self._secret_file(purpose)
                if not path.exists():
                    self._new_set(purpose).save(path)
                    made.append(path)
            for purpose in _PAIRS:
                made += self._generate_pair(purpose)
            return made

    def sets(self) -> Iterator[tuple[Purpose, Path, KeySet]]:
        """Yield every key file that is here and may be read, with its keys."""
        for purpose in Purpose:
            for path in filter(None, (self._secret_file(purpose), self._public_file(purpose))):
                if path.exists():
                    yield purpose, path, KeySet.load(path)

    def add(self, purpose: Purpose, *, activate: bool) -> str:
        """Make one more key and return its id.

        Args:
            purpose: whose file it goes into.
            activate: seal with it from now on; else it can only open until `activate` is called.

        Raises:
            EncryptionError: the files are not there.
        """
        with self._locked():
            path = self._secret_file(purpose)
            held = KeySet.load(path)
            key_id, key = next(iter(self._new_set(purpose).keys.items()))
            active = key_id if activate else held.active
            self._store(purpose, replace(held, active=active, keys={**held.keys, key_id: key}))
            return key_id

    def activate(self, purpose: Purpose, key_id: str) -> None:
        """Seal with the key `key_id` from now on.

        Raises:
            EncryptionError: there is no such key.
        """
        with self._locked():
            held = KeySet.load(self._secret_file(purpose))
            held.key(key_id)
            self._store(purpose, replace(held, active=key_id))

    def destroy(self, purpose: Purpose, key_id: str) -> None:
        """Remove the key `key_id` for good: what it sealed can be opened by nobody any more.

        The public half of a signer's key stays: what it signed can still be verified.

        Raises:
            ValidationError: it is the active key.
            EncryptionError: there is no such key.
        """
        with self._locked():
            path = self._secret_file(purpose)
            held = KeySet.load(path)
            held.key(key_id)
            if key_id == held.active:
                raise ValidationError(
                    f"{purpose} key {key_id} is active; rotate first, then destroy it", field="key_id"
                )
            kept = replace(held, keys={name: key for name, key in held.keys.items() if name != key_id})
            kept.save(path)
            if purpose is Purpose.AUDIT:
                self._publish(purpose, kept)

    def _generate_pair(self, purpose: Purpose) -> list[Path]:
        public, private = self._public_file(purpose), self._secret_file(purpose)
        assert public is not None, "pairs have a public file"
        made = []
        if not private.exists():
            if public.exists():
                raise EncryptionError(
                    f"{public} exists without {private}; restore the missing half from its backup"
                )
            # The private half first: a public half alone would seal rows that nobody can ever read.
            self._new_set(purpose).save(private)
            made.append(private)
        halves = KeySet.load(private)
        if not public.exists():
            self._publish(purpose, halves)
            made.append(public)
        elif not _is_pair(KeySet.load(public), halves, purpose):
            raise EncryptionError(f"{public} and {private} are no pair; restore them from the same backup")
        return made

    def _store(self, purpose: Purpose, keys: KeySet) -> None:
        # The half that opens is in place before anything can be sealed to it.
        keys.save(self._secret_file(purpose))
        if purpose in _PAIRS:
            self._publish(purpose, keys)

    def _publish(self, purpose: Purpose, halves: KeySet) -> None:
        path = self._public_file(purpose)
        assert path is not None, "pairs have a public file"
        known = KeySet.load(path).keys if path.exists() and purpose is Purpose.CHECKPOINT else {}
        public = {key_id: _PAIRS[purpose](key) for key_id, key in halves.keys.items()}
        KeySet(halves.active, {**known, **public}).save(path)

    def _new_set(self, purpose: Purpose) -> KeySet:
        audit = purpose is Purpose.AUDIT
        # Any 32 random bytes are a private key of Ed25519.
        key = new_private_key(self.algorithm) if audit else secrets.token_bytes(KEY_BYTES)
        public_of = _PAIRS.get(purpose)
        key_id = secrets.token_hex(8) if public_of is None else key_id_of(public_of(key))
        return KeySet(key_id, {key_id: key}, self.wrapped_by)

    def _secret_file(self, purpose: Purpose) -> Path:
        return {
            Purpose.MESSAGE: self.producer / MESSAGE_KEYS,
            Purpose.BLIND_INDEX: self.producer / BLIND_INDEX_KEYS,
            Purpose.AUDIT: self.reader / AUDIT_PRIVATE_KEYS,
            Purpose.CHECKPOINT: self.signer / CHECKPOINT_PRIVATE_KEYS,
        }[purpose]

    def _public_file(self, purpose: Purpose) -> Path | None:
        name = {Purpose.AUDIT: AUDIT_PUBLIC_KEYS, Purpose.CHECKPOINT: CHECKPOINT_PUBLIC_KEYS}.get(purpose)
        return None if name is None else self.producer / name

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.producer.mkdir(parents=True, exist_ok=True, mode=0o700)
        with opened_folder(self.producer) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield


def _is_pair(public: KeySet, halves: KeySet, purpose: Purpose) -> bool:
    made = {key_id: _PAIRS[purpose](key) for key_id, key in halves.keys.items()}
    common = {key_id: key for key_id, key in public.keys.items() if key_id in made}
    # Public halves of destroyed signers stay; a recipient's half that nobody can open would lose rows.
    complete = purpose is Purpose.CHECKPOINT or len(common) == len(public.keys)
    return public.active in common and complete and all(made[key_id] == key for key_id, key in common.items())


def _public_of_signer(private_key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


_PAIRS: dict[Purpose, Callable[[bytes], bytes]] = {
    Purpose.AUDIT: public_half,
    Purpose.CHECKPOINT: _public_of_signer,
}
"""Purposes with two halves, and what makes the public one."""


def generate_keys(keys_dir: Path, reader_keys_dir: Path, signing_keys_dir: Path) -> list[Path]:
    """Make the key files that are missing in these folders; see `KeyFolders.generate`."""
    return KeyFolders(keys_dir, reader_keys_dir, signing_keys_dir).generate()
