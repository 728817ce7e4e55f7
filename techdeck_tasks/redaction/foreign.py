"""Code of others that runs while an error is told: its `__str__`, the items of a context, names of classes.

It may raise anything. Whoever runs it catches `BaseException`, and lets pass what `is_order` tells of.
"""

from __future__ import annotations

from typing import Any, Final

_MRO: Final = vars(type)["__mro__"]
_MODULE: Final = vars(type)["__module__"]
_QUALNAME: Final = vars(type)["__qualname__"]
_GREEN: Final = ("eventlet.", "gevent.", "greenlet")


def is_order(trouble: BaseException) -> bool:
    """Whether `trouble` is meant for the process and not for who runs code of others.

    That is Ctrl-C, and what green threads are killed and timed out with.
    """
    kind = type(trouble)
    return KeyboardInterrupt in mro_of(kind) or is_of_green_threads(kind)


def is_of_green_threads(kind: type) -> bool:
    """Whether an exception class is one that green threads are killed or timed out with."""
    return dotted_name(kind).startswith(_GREEN)


def text_from(value: Any) -> str | None:
    """Return `str(value)` as a `str` and no subclass of it; None where its code fails."""
    try:
        return str.__str__(str(value))
    except BaseException as trouble:
        if is_order(trouble):
            raise
        return None


# A metaclass may answer for `__module__` or `__mro__` what it likes, or raise: these do not ask it.


def mro_of(kind: type) -> tuple[type, ...]:
    """Return the classes that `kind` inherits from, itself first."""
    bases: tuple[type, ...] = _MRO.__get__(kind)
    return bases


def short_name(kind: type) -> str:
    """Return the name of a class without its module."""
    return str(_QUALNAME.__get__(kind)).rpartition(".")[2]


def dotted_name(kind: type) -> str:
    """Return module and qualified name of a class."""
    module = _MODULE.__get__(kind)
    # `__module__` can be set to any object.
    told = str.__str__(module) if isinstance(module, str) else "?"
    return f"{told}.{_QUALNAME.__get__(kind)}"
