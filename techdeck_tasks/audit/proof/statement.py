"""Signed statements about the log: their bytes and their signatures.

A statement begins with a magic of its kind, so that a signature under one kind proves nothing about another.
It is stored as the bytes that were signed and never rebuilt from columns. All integers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from techdeck_tasks.audit.canonical import microseconds
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.keyring import KeySet

_INT = struct.Struct(">q")
_LENGTH = struct.Struct(">I")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StatementWriter:
    """Appends values to a statement.

    Args:
        magic: four bytes that name its kind.
        version: of its layout.
    """

    def __init__(self, magic: bytes, version: int) -> None:
        self._parts = [magic, bytes((version,))]

    def number(self, value: int) -> None:
        """Append a signed 64-bit integer."""
        self._parts.append(_INT.pack(value))

    def blob(self, value: bytes) -> None:
        """Append bytes, after their length."""
        self._parts += (_LENGTH.pack(len(value)), value)

    def text(self, value: str) -> None:
        """Append text as UTF-8, after its length."""
        self.blob(value.encode())

    def moment(self, value: datetime) -> None:
        """Append an aware time, in microseconds from 1970 UTC."""
        self.number(microseconds(value))

    def to_bytes(self) -> bytes:
        """Return the statement."""
        return b"".join(self._parts)


class StatementReader:
    """Takes values from a statement in the order they were written.

    Attributes:
        version: of its layout.

    Args:
        data: the statement.
        magic: what it must begin with.
        versions: what its layout may be.

    Raises:
        ValidationError: the statement is of another kind; each method: it is shorter than it says.
    """

    def __init__(self, data: bytes, magic: bytes, *versions: int) -> None:
        self._data = data
        self._at = 0
        if self._take(len(magic)) != magic or (version := self._take(1)[0]) not in versions:
            raise _malformed(data)
        self.version = version

    def number(self) -> int:
        """Return the next integer."""
        value: int = _INT.unpack(self._take(_INT.size))[0]
        return value

    def blob(self) -> bytes:
        """Return the next bytes."""
        return self._take(_LENGTH.unpack(self._take(_LENGTH.size))[0])

    def text(self) -> str:
        """Return the next text."""
        try:
            return self.blob().decode()
        except UnicodeDecodeError:
            raise _malformed(self._data) from None

    def moment(self) -> datetime:
        """Return the next time, aware UTC."""
        try:
            return _EPOCH + timedelta(microseconds=self.number())
        except OverflowError:
            raise _malformed(self._data) from None

    def count(self) -> range:
        """Return a range over the number of values that follow."""
        return range(self.number())

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self._at != len(self._data):
            raise _malformed(self._data)

    def _take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise _malformed(self._data)
        return self._data[start : self._at]


def _malformed(data: bytes) -> ValidationError:
    return ValidationError(f"signed statement of {len(data)} bytes is malformed", field="statement")


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement, and the Ed25519 signature (RFC 8032) of key `key_id` over its bytes."""

    statement: bytes = field(repr=False)
    key_id: str
    signature: bytes = field(repr=False)


class SignatureState(StrEnum):
    """What a signature proves."""

    VALID = "valid"
    UNKNOWN_KEY = "unknown_key"
    FORGED = "forged"


class Signer:
    """Signs under the active key of `keys`, raw Ed25519 private keys."""

    def __init__(self, keys: KeySet) -> None:
        self._key_id = keys.active
        self._key = Ed25519PrivateKey.from_private_bytes(keys.active_key)

    def sign(self, statement: bytes) -> Signed:
        """Return `statement` with its signature."""
        return Signed(statement, self._key_id, self._key.sign(statement))


class SignatureCheck:
    """Checks signatures against `keys`, raw Ed25519 public keys; the only ones trusted."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = {key_id: Ed25519PublicKey.from_public_bytes(key) for key_id, key in keys.keys.items()}

    def state(self, signed: Signed) -> SignatureState:
        """Tell what the signature proves."""
        key = self._keys.get(signed.key_id)
        if key is None:
            return SignatureState.UNKNOWN_KEY
        try:
            key.verify(signed.signature, signed.statement)
        except InvalidSignature:
            return SignatureState.FORGED
        return SignatureState.VALID
