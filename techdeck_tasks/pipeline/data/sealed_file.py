"""Files sealed in chunks, so that one of any size is sealed and opened in bounded memory.

A sealed file is ``magic | file id (16) | chunk...``, a chunk ``length (4) | sealed blob``. Each blob is bound
to the file's id, to the place it belongs to, to its number, and to whether it is the last: chunks that were
swapped, repeated, left out, cut off or brought from another file do not open. Whoever knows the id need not
digest the file to know that it is the one that was written.
"""

from __future__ import annotations

import struct
from typing import Protocol

from techdeck_tasks.errors import EncryptionError

_MAGIC = b"TDSF1\0"
FILE_ID_BYTES = 16
_LENGTH = struct.Struct(">I")
_NUMBER = struct.Struct(">Q?")
CHUNK_BYTES = 1 << 20
_MAX_BLOB_BYTES = CHUNK_BYTES + 1024


class Cipher(Protocol):
    """Seals what those who keep it must not be able to read."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt `plaintext`, bound to `aad`."""

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext of `sealed`; raises EncryptionError if it or `aad` was changed."""


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class Target(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


def seal_stream(cipher: Cipher, source: Source, target: Target, place: bytes, file_id: bytes) -> None:
    """Write all of `source` to `target`, sealed and bound to `place`; `file_id` is no other file's."""
    target.write(_MAGIC + file_id)
    number = 0
    chunk = source.read(CHUNK_BYTES)
    while True:
        following = source.read(CHUNK_BYTES)
        blob = cipher.seal(chunk, _aad(file_id, place, number, last=not following))
        target.write(_LENGTH.pack(len(blob)) + blob)
        if not following:
            return
        chunk, number = following, number + 1


def open_stream(cipher: Cipher, source: Source, target: Target, place: bytes, file_id: bytes) -> None:
    """Write to `target` what `seal_stream` was given.

    Raises:
        EncryptionError: the file is malformed, was changed, or belongs elsewhere, or its key is not held;
            what was written to `target` until then must be thrown away.
    """
    if source.read(len(_MAGIC) + FILE_ID_BYTES) != _MAGIC + file_id:
        raise _malformed()
    number = 0
    blob = _read_blob(source)
    while True:
        following = _read_blob(source)
        target.write(cipher.open(blob, _aad(file_id, place, number, last=not following)))
        if not following:
            return
        blob, number = following, number + 1


def _read_blob(source: Source) -> bytes:
    """Return the next blob, empty at the end of the file."""
    head = source.read(_LENGTH.size)
    if not head:
        return b""
    if len(head) != _LENGTH.size or (length := _LENGTH.unpack(head)[0]) > _MAX_BLOB_BYTES:
        raise _malformed()
    blob = source.read(length)
    if len(blob) != length or not blob:
        raise _malformed()
    return blob


def _aad(file_id: bytes, place: bytes, number: int, *, last: bool) -> bytes:
    return b"sealed_file|" + file_id + _NUMBER.pack(number, last) + place


def _malformed() -> EncryptionError:
    return EncryptionError("a sealed file is malformed, cut off or another one; make it again")
