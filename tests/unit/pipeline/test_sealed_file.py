from __future__ import annotations

import io

import pytest

from techdeck_tasks.errors import EncryptionError
from techdeck_tasks.keyring import Cipher, KeySet
from techdeck_tasks.pipeline.data.sealed_file import CHUNK_BYTES, open_stream, seal_stream


def sealed(cipher: Cipher, plain: bytes, place: bytes = b"run/stage", file_id: bytes = bytes(16)) -> bytes:
    target = io.BytesIO()
    seal_stream(cipher, io.BytesIO(plain), target, place, file_id)
    return target.getvalue()


def opened(cipher: Cipher, blob: bytes, place: bytes = b"run/stage", file_id: bytes = bytes(16)) -> bytes:
    target = io.BytesIO()
    open_stream(cipher, io.BytesIO(blob), target, place, file_id)
    return target.getvalue()


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES], ids=str
)
def test_a_file_of_any_size_is_opened_as_it_was(cipher: Cipher, size: int) -> None:
    plain = bytes(range(256)) * (size // 256 + 1)
    assert opened(cipher, sealed(cipher, plain[:size])) == plain[:size]


def chunks(blob: bytes) -> list[bytes]:
    head, rest = 22, []
    while head < len(blob):
        length = int.from_bytes(blob[head : head + 4])
        rest.append(blob[head : head + 4 + length])
        head += 4 + length
    return rest


def test_chunks_cannot_be_swapped_repeated_left_out_or_cut_off(cipher: Cipher) -> None:
    blob = sealed(cipher, bytes(2 * CHUNK_BYTES + 5))
    head, (one, two, three) = blob[:22], chunks(blob)
    for changed in (
        [two, one, three],
        [one, one, two, three],
        [one, three],
        [one, two],
        [],
        [one, two, three[:-1]],
        [one, two, three, b"\0\0"],
        [one, two, three, b"\0\0\0\0"],
        [one, two, three, b"\xff\xff\xff\xff"],
    ):
        with pytest.raises(EncryptionError):
            opened(cipher, head + b"".join(changed))


def test_a_chunk_of_another_file_does_not_open(cipher: Cipher) -> None:
    mine, other = (sealed(cipher, bytes(CHUNK_BYTES + 1), file_id=id_ * 16) for id_ in (b"m", b"o"))
    with pytest.raises(EncryptionError):
        opened(cipher, mine[:22] + chunks(other)[0] + chunks(mine)[1], file_id=b"m" * 16)
    with pytest.raises(EncryptionError, match="another one"):
        opened(cipher, other, file_id=b"m" * 16)
    with pytest.raises(EncryptionError):
        opened(cipher, mine[:6] + b"o" * 16 + mine[22:], file_id=b"o" * 16)


def test_a_file_opens_only_at_its_place_and_with_its_key(cipher: Cipher) -> None:
    blob = sealed(cipher, b"data")
    with pytest.raises(EncryptionError, match="belongs elsewhere"):
        opened(cipher, blob, b"another place")
    with pytest.raises(EncryptionError, match="not in this key ring"):
        opened(Cipher(KeySet("other", {"other": bytes(32)})), blob)
    with pytest.raises(EncryptionError, match="malformed"):
        opened(cipher, b"PAR1" + blob)
