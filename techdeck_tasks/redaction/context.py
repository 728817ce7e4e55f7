"""Structured data made safe to log, store and show."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from techdeck_tasks.redaction.foreign import is_order, short_name, text_from
from techdeck_tasks.redaction.keys import (
    compact_key,
    hides,
    holds_persons,
    is_sensitive_key,
    names_a_person,
    tells_of_a_person,
)
from techdeck_tasks.redaction.rule import REDACTED
from techdeck_tasks.redaction.sanitizer import redact_within, sanitize_message

MAX_DEPTH: Final = 12
"""Containers nested deeper than this are replaced by `TRUNCATED`."""

MAX_ITEMS: Final = 200
"""Entries of one container that are kept; one more entry tells how many were dropped."""

MAX_NODES: Final = 5_000
"""Values visited in one call, whatever their nesting."""

MAX_STRING_CHARS: Final = 8_192
"""Characters kept of one string."""
MAX_CHARS: Final = 2**19
"""Characters of strings and keys read in one call; the string that passes it is the last."""

MAX_INTEGER_BITS: Final = 256
"""Larger integers are described by their size: their decimal form costs quadratic time."""

TRUNCATED: Final = "[TRUNCATED]"
CYCLE: Final = "[CYCLE]"
UNPRINTABLE: Final = "[UNPRINTABLE]"


def sanitize_context(value: Any) -> Any:
    """Return `value` as plain, JSON-safe, redacted data.

    Args:
        value: Anything. Mappings, sequences, sets, dataclasses, bytes and exceptions are walked; other
            objects are described by their redacted `str`.

    Returns:
        Only `str`, `int`, `float`, `bool`, `None`, `list` and `dict` with `str` keys. Values under sensitive
        keys are `[REDACTED]`, and so are those under `name`, `first`, `city` and the like in what tells of a
        person; all other strings, and the keys themselves, are redacted. `nan` and the infinities, which JSON
        does not know, become strings.

    Bounded in depth, items and characters, of one string and of all; what is beyond a bound is left out and
    counted. A cycle is named, not followed. Never raises.
    """
    return Walk().visit(value, 0)


class Walk:
    """One traversal, of one value or of several: counts what it visits, and knows what it is inside of."""

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._nodes = 0
        self._chars = 0
        self._of_person = False

    def visit(self, value: Any, depth: int) -> Any:
        """Return what `sanitize_context` does, of a value that stands `depth` containers deep."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return TRUNCATED
        try:
            return self._told(value, depth)
        except BaseException as trouble:
            # Even `isinstance` runs code of the value's class; describing an error must not raise another.
            if is_order(trouble):
                raise
            return UNPRINTABLE

    def _told(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._string(_decode(value))
        if issubclass(type(value), BaseException):
            return {"type": short_name(type(value)), "message": sanitize_message(_describe(value))}
        return self._container(value, depth)

    def _container(self, value: Any, depth: int) -> Any:
        if depth >= MAX_DEPTH:
            return TRUNCATED
        if id(value) in self._inside:
            return CYCLE
        self._inside.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(list(_first(value.items())), len(value), depth)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = [
                    (field.name, getattr(value, field.name, UNPRINTABLE))
                    for field in dataclasses.fields(value)
                ]
                return self._mapping(fields, len(fields), depth)
            if isinstance(value, Sequence | AbstractSet):
                return self._items(list(_first(value)), len(value), depth)
        except BaseException as trouble:
            # A container that fails while it is read is described instead.
            if is_order(trouble):
                raise
        finally:
            self._inside.discard(id(value))
        return self._string(_describe(value))

    def _mapping(self, pairs: list[tuple[Any, Any]], size: int, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        # {"name": "DB_PASSWORD", "value": "..."}: the sensitive key is itself a value.
        named = any(
            isinstance(key, str)
            and key.lower() in {"name", "key", "field"}
            and is_sensitive_key(_describe(entry))
            for key, entry in pairs
        )
        keys = [_text_of_key(key) for key, _ in pairs]
        compact_keys = [compact_key(key) for key in keys]
        outside = self._of_person
        of_person = outside or tells_of_a_person(compact_keys)
        for count, (key, compact, (_, entry)) in enumerate(zip(keys, compact_keys, pairs, strict=True)):
            if self._chars >= MAX_CHARS:
                pairs = pairs[:count]
                break
            hidden = (
                hides(compact)
                or (named and key.lower() == "value")
                or (
                    issubclass(type(entry), str)
                    and names_a_person(compact, entry, compact_keys, of_person=of_person)
                )
            )
            name = _unused(self._string(key), result)
            self._of_person = of_person or holds_persons(compact)
            result[name] = REDACTED if hidden and not _is_flag(entry) else self.visit(entry, depth + 1)
        self._of_person = outside
        if size > len(pairs):
            result[TRUNCATED] = size - len(pairs)
        return result

    def _items(self, items: list[Any], size: int, depth: int) -> list[Any]:
        result: list[Any] = []
        for item in items:
            if self._chars >= MAX_CHARS:
                break
            result.append(self.visit(item, depth + 1))
        if size > len(result):
            result.append(f"{TRUNCATED} {size - len(result)} more")
        return result

    def _string(self, value: str) -> str:
        # A subclass may override anything; this copies the characters themselves.
        text = str.__str__(value)
        self._chars += min(len(text), MAX_STRING_CHARS)
        return redact_within(text, MAX_STRING_CHARS)


def _text_of_key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return _decode(key) if isinstance(key, bytes) else _describe(key)


def _first(entries: Iterable[Any]) -> Iterator[Any]:
    return itertools.islice(entries, MAX_ITEMS)


def _is_flag(value: Any) -> bool:
    """`{"password": None}` and `{"token": False}` tell that there is none: worth knowing, and no secret."""
    return value is None or type(value) is bool


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """Number a key that redaction made equal to another one, so that no entry is lost."""
    if name not in taken:
        return name
    return next(numbered for count in itertools.count(2) if (numbered := f"{name} ({count})") not in taken)


def _number(value: float) -> int | float | str:
    if isinstance(value, int):
        bits = value.bit_length()
        return int(value) if bits <= MAX_INTEGER_BITS else f"<integer of {bits} bits>"
    return float(value) if math.isfinite(value) else repr(float(value))


def _decode(value: bytes | bytearray | memoryview) -> str:
    return bytes(value[: MAX_STRING_CHARS + 1]).decode("utf-8", "backslashreplace")


def _describe(value: Any) -> str:
    """Return `str(value)`, or what can be said where that fails."""
    text = text_from(value)
    return f"{UNPRINTABLE} {short_name(type(value))}" if text is None else text
