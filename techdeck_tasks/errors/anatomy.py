"""What every exception is made of, read past whatever its class makes of it.

A class may define `__getattribute__`, `__class__` or `__cause__` anew, with code that raises; `isinstance`
runs some of it. `is_open` tells such classes. Of their instances only what stands here may be asked;
`approachable` gives one of ours in their place.
"""

from __future__ import annotations

from abc import ABCMeta
from types import (
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    TracebackType,
    WrapperDescriptorType,
)
from typing import Any, Final

from techdeck_tasks.redaction.foreign import mro_of

_PARTS: Final = frozenset(
    {
        "__cause__",
        "__class__",
        "__context__",
        "__dict__",
        "__getattribute__",
        "__notes__",
        "__suppress_context__",
        "__traceback__",
        "with_traceback",
    }
)
"""What is asked of an exception wherever it goes, by this package, Celery and the interpreter's library."""

_WRITTEN_IN_C: Final = (
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
_OF_EVERY_EXCEPTION: Final = vars(BaseException)
_ATTRIBUTES: Final = _OF_EVERY_EXCEPTION["__dict__"]
_CAUSE: Final = _OF_EVERY_EXCEPTION["__cause__"]
_CONTEXT: Final = _OF_EVERY_EXCEPTION["__context__"]
_SUPPRESSES: Final = _OF_EVERY_EXCEPTION["__suppress_context__"]
_TRACEBACK: Final = _OF_EVERY_EXCEPTION["__traceback__"]
_MAX_CACHED_TYPES: Final = 4096
_open: dict[type, bool] = {}


def is_open(kind: type[BaseException]) -> bool:
    """Whether instances of an exception class may be asked as any other's: it redefines no part of them."""
    if not _has_plain_class(kind):
        return False
    known = _open.get(kind)
    if known is None:
        if len(_open) >= _MAX_CACHED_TYPES:
            # Celery's JSON result back end makes a new type for each exception it cannot import.
            _open.clear()
        known = _open[kind] = type(kind.__module__) is str and not any(map(_redefines_a_part, mro_of(kind)))
    return known


def open_base(kind: type[BaseException]) -> type[BaseException]:
    """Return the nearest class that `kind` is, or inherits from, whose instances may be asked."""
    return next(base for base in mro_of(kind) if issubclass(base, BaseException) and is_open(base))


def named_kind(kind: type[BaseException]) -> type[BaseException]:
    """Return the nearest class that `kind` is, or inherits from, that can be a key: of no metaclass."""
    if _has_plain_class(kind):
        return kind
    return next(base for base in mro_of(kind) if _has_plain_class(base))


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the instance's own attributes, to be read and written with the methods of `dict` alone."""
    attributes: dict[str, Any] = _ATTRIBUTES.__get__(error)
    return attributes


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return where `error` was raised."""
    traceback: TracebackType | None = _TRACEBACK.__get__(error)
    return traceback


def preceding(error: BaseException) -> BaseException | None:
    """Return what led to `error`: its cause, or else its context where that is shown."""
    cause: BaseException | None = _CAUSE.__get__(error)
    if cause is not None or _SUPPRESSES.__get__(error):
        return cause
    context: BaseException | None = _CONTEXT.__get__(error)
    return context


def forget_preceding(error: BaseException) -> None:
    """Drop cause and context. Works where a class refuses assignments, as a frozen dataclass does."""
    _CAUSE.__set__(error, None)
    _CONTEXT.__set__(error, None)


def _has_plain_class(kind: type) -> bool:
    return type(kind) is type or type(kind) is ABCMeta


def _redefines_a_part(base: type) -> bool:
    own = vars(base)
    return any(not isinstance(own[part], _WRITTEN_IN_C) for part in _PARTS & own.keys())
