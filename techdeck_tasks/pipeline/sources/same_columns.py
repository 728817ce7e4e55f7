"""The rows of several files of one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data import data_url


def mixed_columns(schemas: Sequence[pl.Schema]) -> set[str]:
    """Return the columns that are numbers in one file and something else in another.

    CSV is to be read again for them: text made of numbers would have lost its zeros.
    """
    types: dict[str, set[pl.DataType]] = {}
    for schema in schemas:
        for name, dtype in schema.items():
            types.setdefault(name, set()).add(dtype)
    return {
        name
        for name, dtypes in types.items()
        if len(dtypes) > 1 and not all(dtype.is_numeric() for dtype in dtypes)
    }


def union(frames: Sequence[pl.LazyFrame], url: str) -> pl.LazyFrame:
    """Return the rows of all frames, one after the other, with the columns in the order of the first.

    Args:
        frames: the files' rows; at least one. A column's type becomes one that holds those of all.
        url: what found the files, for the message.

    Raises:
        ValidationError: they have different columns.
    """
    names = [set(frame.collect_schema()) for frame in frames]
    for number, found in enumerate(names):
        if found != names[0]:
            raise ValidationError(
                f"the files of {data_url.display(url)} have different columns: file "
                f"{number} (from 0, by name) and the first differ in {len(found ^ names[0])}; "
                "load them as sources of their own",
                field="source.url",
                validation_rule="same_columns",
            )
    if len(frames) == 1:
        return frames[0]
    order = list(frames[0].collect_schema())
    return pl.concat([frame.select(order) for frame in frames], how="vertical_relaxed")


def without_empty_objects(schema: pl.Schema, joined: pl.Schema) -> pl.Schema:
    """Return the types to read a file of JSON with: text where nowhere an object has a field.

    Polars makes ``{}`` of such an object, and tells it from null; Parquet has no type of no fields.

    Args:
        schema: the types of the file.
        joined: those of all files together.
    """
    return pl.Schema({name: _filled(dtype, joined[name]) for name, dtype in schema.items()})


def _filled(dtype: Any, joined: Any) -> Any:
    if isinstance(joined, pl.List) and isinstance(dtype, pl.List):
        return pl.List(_filled(dtype.inner, joined.inner))
    if isinstance(joined, pl.Struct) and isinstance(dtype, pl.Struct):
        if not joined.fields:
            return pl.String()
        types = {field.name: field.dtype for field in joined.fields}
        return pl.Struct({field.name: _filled(field.dtype, types[field.name]) for field in dtype.fields})
    return dtype
