"""Parquet files put together to one: row groups are copied as they are, and not decoded and encoded again.

Of the format (apache/parquet-format, parquet.thrift) only the footer is read, a Thrift structure in the
compact protocol, as a tree of numbered fields; what it says of places in the file is moved along.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")

# Numbers of fields: of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_SCHEMA, _ROWS, _ROW_GROUPS = 2, 3, 4
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
_CHUNK_OFFSETS, _CHUNK_META = (2, 4, 6), 3
_META_OFFSETS = (9, 10, 11, 14)

# Types of the compact protocol: 1, 2 true and false, 3 byte, 4 to 6 integers, 7 double, 8 binary, 9 list,
# 10 set, 12 structure.
_BOOLEANS, _BYTE, _LIST, _STRUCT = (1, 2), 3, 9, 12
_MORE = 0x80
_LONG = 15
_MAX_ORDINAL = (1 << 15) - 1

Fields = dict[int, tuple[int, Any]]
"""By number of a field, its type in the protocol and its value; that of a list is (type, values)."""


def concatenate(
    sources: Sequence[Callable[[BinaryIO], None]],
    target: Path,
    on_written: Callable[[int], None] = lambda _end: None,
) -> bool:
    """Write the rows of all `sources` to `target`; False, and nothing of use, where their columns differ.

    Args:
        sources: each writes a whole Parquet file to the end of the file that it is handed.
        target: the file; at least one of `sources` is needed.
        on_written: told of each offset before which the file stays as it is.
    """
    first: Fields = {}
    groups: list[Fields] = []
    rows = 0
    with target.open("w+b") as out:
        for write in sources:
            shift = out.tell()
            write(out)
            fields, begins_at = _footer(out)
            first = first or fields
            if fields[_SCHEMA] != first[_SCHEMA]:
                return False
            for group in fields[_ROW_GROUPS][1][1]:
                _move(group, shift, len(groups))
                groups.append(group)
            rows += fields[_ROWS][1]
            # The next file takes this footer's place; nobody reads its magic bytes between row groups.
            out.seek(begins_at)
            out.truncate()
            on_written(begins_at)
        data = bytearray()
        merged = {_ROWS: (first[_ROWS][0], rows), _ROW_GROUPS: (_LIST, (_STRUCT, groups))}
        _write_structure(data, first | merged)
        out.write(data + _TAIL.pack(len(data), _MAGIC))
        out.flush()
        on_written(out.tell())
    return True


def _footer(file: BinaryIO) -> tuple[Fields, int]:
    """Return the footer of the Parquet file at the end of `file`, and where it begins."""
    end = file.seek(-_TAIL.size, 2)
    length, _ = _TAIL.unpack(file.read())
    begins_at = file.seek(end - length)
    return _Reader(file.read(length)).structure(), begins_at


def _move(group: Fields, shift: int, number: int) -> None:
    """Let a row group's places be `shift` bytes further on, and the group be the `number`-th of its file."""
    _add(group, (_GROUP_OFFSET,), shift)
    kind, _ = group.pop(_ORDINAL, (0, 0))
    if kind and number <= _MAX_ORDINAL:  # it may be left out
        group[_ORDINAL] = (kind, number)
    for chunk in group[_COLUMNS][1][1]:
        _add(chunk, _CHUNK_OFFSETS, shift)
        _add(chunk[_CHUNK_META][1], _META_OFFSETS, shift)


def _add(fields: Fields, numbers: Sequence[int], shift: int) -> None:
    for number in numbers:
        kind, place = fields.get(number, (0, 0))
        if place:  # 0 means: there is none
            fields[number] = (kind, place + shift)


class _Reader:
    """Reads Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def structure(self) -> Fields:
        fields: Fields = {}
        number = 0
        while head := self._byte():
            step, kind = head >> 4, head & 0x0F
            number = number + step if step else self._integer()
            fields[number] = (kind, self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2:  # of a boolean field the type is the value
                value: Any = None
            case 3:
                value = self._byte()
            case 4 | 5 | 6:
                value = self._integer()
            case 7:
                value = self._bytes(8)
            case 8:
                value = self._bytes(self._varint())
            case 9 | 10:
                value = self._list()
            case 12:
                value = self.structure()
            case _:
                raise ValueError(f"a Parquet footer has no field of type {kind}")
        return value

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size, kind = head >> 4, head & 0x0F
        if size == _LONG:
            size = self._varint()
        if kind in _BOOLEANS:
            return kind, [self._byte() for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) >= _MORE:
            value |= (byte - _MORE) << shift
            shift += 7
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _write_structure(out: bytearray, fields: Fields) -> None:
    before = 0
    for number, (kind, value) in sorted(fields.items()):
        step = number - before
        if step <= _LONG:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, number)
        _write_value(out, kind, value)
        before = number
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    match kind:
        case 3:
            out.append(value)
        case 4 | 5 | 6:
            _write_integer(out, value)
        case 7:
            out += value
        case 8:
            _write_varint(out, len(value))
            out += value
        case 9 | 10:
            _write_list(out, *value)
        case 12:
            _write_structure(out, value)


def _write_list(out: bytearray, kind: int, values: list[Any]) -> None:
    out.append(min(len(values), _LONG) << 4 | kind)
    if len(values) >= _LONG:
        _write_varint(out, len(values))
    for value in values:
        _write_value(out, _BYTE if kind in _BOOLEANS else kind, value)


def _write_integer(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _write_varint(out: bytearray, value: int) -> None:
    while value >= _MORE:
        out.append(value & (_MORE - 1) | _MORE)
        value >>= 7
    out.append(value)
