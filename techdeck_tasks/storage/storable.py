"""Columns for text that others wrote: what PostgreSQL cannot hold becomes U+FFFD, and is no reason to fail.

A row with a zero character is refused, and with it what the row was to say: that a stage failed, say.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any) -> Any:
    """Return JSON-safe data without zero characters and halves of surrogate pairs."""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\0", _REPLACEMENT)
    if isinstance(value, dict):
        return {storable(name): storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable(inner) for inner in value]
    return value


class StorableText(TypeDecorator[str]):
    """Text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's
        """Return what is stored."""
        return storable(value)


class StorableDocument(TypeDecorator[Any]):
    """JSON; None is NULL, since JSON null would be a second way to say "none"."""

    impl = JSONB(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's
        """Return what is stored."""
        return storable(value)
