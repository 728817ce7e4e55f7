"""Compressed sources: recognised by their content, unpacked in bounded memory up to a bounded size."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import IO, Any

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data import data_url, location

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_OTHERS = {b"PK\x03\x04": "zip, as are workbooks", b"BZh": "bzip2", b"\xfd7zX": "xz", b"7z\xbc\xaf": "7-Zip"}
_BLOCK_BYTES = 1 << 20
_Opened = tuple[Any, tuple[type[Exception], ...]]
# Bounds the memory that a zstd frame may ask for: 128 MiB, what `zstd --long` makes at most by default.
_MAX_ZSTD_WINDOW_BYTES = 1 << 27
# RFC 8878, section 3.1: bounds of a frame's header, the parts of a block's, and frames that are skipped.
_MAX_FRAME_HEADER_BYTES = 18
_BLOCK_HEADER_BYTES = 3
_RLE_BLOCK = 1
_CHECKSUM_BYTES = 4
_SKIPPABLE = b"\x2a\x4d\x18"
_SKIPPABLE_HEADER_BYTES = 8


def is_packed(path: Path) -> bool:
    """Whether the content is gzip or zstd."""
    with path.open("rb") as file:
        return file.read(len(_ZSTD)).startswith((_GZIP, _ZSTD))


def unpacked(path: Path, target: Path, url: str, max_bytes: int) -> Path:
    """Return `path`, or `target` with its content where that is gzip or zstd.

    Args:
        path: the local file.
        target: where the unpacked bytes go.
        url: where the file is from, for messages.
        max_bytes: the most that it may unpack to; a bomb is refused as soon as it passes this.

    Raises:
        ValidationError: too large, corrupt or cut off, packed in another way or twice, or zstd without
            `zstandard`.
    """
    with path.open("rb") as packed:
        magic = packed.read(len(_ZSTD))
        packed.seek(0)
        if magic.startswith(_GZIP):
            name, opened = "gzip", _gzip
        elif magic == _ZSTD:
            name, opened = "zstd", _zstd
        elif other := next((_OTHERS[first] for first in _OTHERS if magic.startswith(first)), None):
            raise ValidationError(
                f"{data_url.display(url)} is packed ({other}), which is not read; unpack it, or pack it with "
                "gzip or zstd",
                field="source.url",
                validation_rule="format",
            )
        else:
            return path
        stream, errors = opened(packed)
        written = 0
        try:
            if name == "zstd":
                _require_whole_frames(packed)
            with stream, target.open("wb") as out:
                while block := stream.read(_BLOCK_BYTES):
                    written += len(block)
                    if written > max_bytes:
                        raise location.too_large(url, max_bytes)
                    out.write(block)
        except errors as error:
            raise ValidationError(
                f"{data_url.display(url)} is corrupt or cut off: its {name} data ends or breaks after "
                f"{written} bytes ({type(error).__name__}); transfer it again",
                field="source.url",
                validation_rule=name,
            ) from None
    if is_packed(target):
        raise ValidationError(
            f"{data_url.display(url)} is packed twice, one in the other; unpack it once",
            field="source.url",
            validation_rule="format",
        )
    return target


def _require_whole_frames(packed: IO[bytes]) -> None:
    """Check that the last frame has its end, which the decompressor does not: it stops where the data does.

    Only the headers of frames and blocks are read. What is no frame is left to the decompressor.

    Raises:
        EOFError: the file ends inside a frame.
    """
    import zstandard  # noqa: PLC0415 - an optional extra

    size = packed.seek(0, os.SEEK_END)
    at = 0
    while at < size:
        packed.seek(at)
        head = packed.read(_MAX_FRAME_HEADER_BYTES)
        if head[1:4] == _SKIPPABLE:
            at += _SKIPPABLE_HEADER_BYTES + int.from_bytes(head[4:_SKIPPABLE_HEADER_BYTES], "little")
            continue
        if not head.startswith(_ZSTD):
            break
        at += zstandard.frame_header_size(head)
        last = False
        while not last and at < size:
            packed.seek(at)
            block = int.from_bytes(packed.read(_BLOCK_HEADER_BYTES), "little")
            last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
            at += _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else length)
        if not last:
            raise EOFError
        at += _CHECKSUM_BYTES if zstandard.get_frame_parameters(head).has_checksum else 0
    if at > size:
        raise EOFError
    packed.seek(0)


def _gzip(packed: IO[bytes]) -> _Opened:
    return gzip.GzipFile(fileobj=packed), (OSError, EOFError, zlib.error)


def _zstd(packed: IO[bytes]) -> _Opened:
    try:
        import zstandard  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ValidationError(
            "the source is compressed with zstd, and zstandard is not installed; "
            "run: pip install 'techdeck-tasks[zstd]', or unpack it first",
            field="source.url",
        ) from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES)
    stream = decompressor.stream_reader(packed, read_across_frames=True)
    return stream, (zstandard.ZstdError, EOFError)
