"""The order of the fields of objects that are nested in records: that in which they first appear.

Polars finds one that depends on all records together, so that parts of a file could not know it.
"""

from __future__ import annotations

from typing import Any

import polars as pl


class FieldOrder:
    """The names seen in the objects of one place of a table, each with what is nested in it."""

    def __init__(self) -> None:
        self._fields: dict[str, FieldOrder] = {}

    def see(self, value: Any) -> None:
        """Take note of an object's fields, or of those of the objects in a list."""
        if isinstance(value, dict):
            for name, inner in value.items():
                self._field(name).see(inner)
        elif isinstance(value, list):
            for inner in value:
                self.see(inner)

    def see_field(self, name: str, value: Any) -> None:
        """Take note of one field of an object."""
        self._field(name).see(value)

    def schema(self, schema: pl.Schema) -> pl.Schema:
        """Return the columns, in their own order, with the fields nested in them in that seen."""
        return pl.Schema({name: self._field(name).dtype(dtype) for name, dtype in schema.items()})

    def _field(self, name: str) -> FieldOrder:
        found = self._fields.get(name)
        if found is None:
            found = self._fields[name] = FieldOrder()
        return found

    def dtype(self, dtype: Any) -> Any:
        """Return the type of what was seen here with its fields in their order."""
        if isinstance(dtype, pl.List):
            return pl.List(self.dtype(dtype.inner))
        if isinstance(dtype, pl.Struct):
            types = {field.name: field.dtype for field in dtype.fields}
            assert types.keys() <= self._fields.keys(), "each record was seen"
            names = [name for name in self._fields if name in types]
            return pl.Struct({name: self._fields[name].dtype(types[name]) for name in names})
        return dtype
