"""Polars' errors without the data in them.

Polars quotes cells in its messages ("could not parse `...` as dtype `i64`"), and, in a file without a header,
the column names it quotes are cells too. So nothing of its text is kept but names of data types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from techdeck_tasks.errors import DataProcessingError, TechDeckError
from techdeck_tasks.pipeline.data.dtypes import BEYOND, INEXACT

_DTYPE = r"(?:[iu](?:8|16|32|64|128)|f(?:32|64)|str|bool|date|time|binary|(?:datetime|duration|list)\[\w+\])"
_CONVERSION = re.compile(rf"(?:conversion|casting) from `?({_DTYPE})`? to `?({_DTYPE})`?")
_PARSE = re.compile(rf"as dtype `({_DTYPE})`")
_BEYOND = re.compile(rf'\["((?:{BEYOND}|{INEXACT}) \w+)"')
_MAX_SCANNED_CHARS = 100_000

_REMEDIES: tuple[tuple[type[BaseException], str], ...] = (
    (pl.exceptions.ColumnNotFoundError, "a column that a parameter names is not in the data"),
    (pl.exceptions.NoDataError, "the file is empty"),
    (pl.exceptions.DuplicateError, "two columns have the same name"),
    (pl.exceptions.OutOfBoundsError, "an index or value is out of bounds"),
    (pl.exceptions.SchemaError, "the data types do not fit the operation"),
    (pl.exceptions.ShapeError, "the number of fields differs between rows"),
    (pl.exceptions.SQLInterfaceError, "an expression is not valid"),
    (pl.exceptions.SQLSyntaxError, "an expression is not valid"),
    (pl.exceptions.InvalidOperationError, "a value or type does not permit the operation"),
    (pl.exceptions.ComputeError, "the data could not be read or computed"),
)


@contextmanager
def frame_errors(operation: str) -> Iterator[None]:
    """Turn an error of Polars inside the block into one that is safe to store.

    Args:
        operation: what was done, for the message.

    Raises:
        DataProcessingError: in place of any error of Polars, its panics included.
    """
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise translate(error, operation) from None
    except pl.exceptions.PanicException as error:
        # A BaseException: uncaught it would take the worker's child process down as if it were a signal.
        raise translate(error, operation) from None


def translate(error: BaseException, operation: str) -> TechDeckError:
    """Return what may be told of an error of Polars."""
    reason = next((text for kind, text in _REMEDIES if isinstance(error, kind)), "Polars could not go on")
    text = str(error)[:_MAX_SCANNED_CHARS]
    if found := _BEYOND.search(text):
        reason = f"a number is {found[1]}"
    elif found := _CONVERSION.search(text):
        reason = f"a value of type {found[1]} cannot be converted to {found[2]}"
    elif found := _PARSE.search(text):
        reason = f"a value cannot be read as {found[1]}"
    return DataProcessingError(
        f"{operation} failed: {reason} ({type(error).__name__}); check the parameters, "
        "or put a validation stage before it",
        operation=operation,
    )
