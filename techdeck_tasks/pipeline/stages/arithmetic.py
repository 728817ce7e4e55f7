"""Where arithmetic of an expression leaves the range of its type.

Polars wraps integers around without a word (100 + 100 as an int8 is -56, 1 - 2 as a uint32 is 4294967295) and
lets floats become infinite (1e300 * 1e300, 1 / 0). Each operation is looked at by itself: a wrong number in
the middle may look right at the end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import polars as pl

from techdeck_tasks.pipeline.data.dtypes import BEYOND

_EXACT: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "Plus": lambda left, right: left + right,
    "Minus": lambda left, right: left - right,
    "Multiply": lambda left, right: left * right,
    "Mul": lambda left, right: left * right,
}
_NEAR = 1e-6
_DATA = frozenset({"Column", "Literal"})
Mask = tuple[pl.Expr, pl.DataType]
"""True in the rows in which an operation leaves the range of its type, and that type."""


def within_range(computed: pl.Expr, schema: pl.Schema, where: str) -> pl.Expr:
    """Return `computed`, which fails where an operation in it leaves its range.

    Args:
        computed: an expression over one row.
        schema: the columns that it is computed from.
        where: the place of the expression, for the message.
    """
    masks = out_of_range(computed, schema)
    if not masks:
        return computed
    first: pl.Expr = pl.coalesce(
        pl.when(mask).then(pl.lit(f"{BEYOND} {str(dtype).lower()} in {where}")) for mask, dtype in masks
    )
    # The cast fails, and its text is what the error tells.
    return pl.when(first.cast(pl.Int64, strict=True).is_null()).then(computed)


def out_of_range(computed: pl.Expr, schema: pl.Schema) -> list[Mask]:
    """Return where operations in `computed` leave their range; nothing where none of them can.

    What CASE, AND, OR and COALESCE do not ask for counts as not computed.
    """
    columns = pl.LazyFrame(schema=schema)
    return list(_masks(json.loads(computed.meta.serialize(format="json")), columns, pl.lit(value=True)))


def _masks(node: Any, columns: pl.LazyFrame, needed: pl.Expr) -> Iterator[Mask]:
    if isinstance(node, list):
        for each in node:
            yield from _masks(each, columns, needed)
    elif isinstance(node, dict):
        for name, inner in node.items():
            if name not in _DATA:
                yield from _INSIDE.get(name, _inside_other)(inner, columns, needed)
                found = _of_operation(name, inner, partial(_dtype, columns=columns))
                if found is not None:
                    mask, dtype = found
                    yield mask.fill_null(value=False) & needed, dtype


def _inside_other(node: Any, columns: pl.LazyFrame, needed: pl.Expr) -> Iterator[Mask]:
    yield from _masks(list(node.values()) if isinstance(node, dict) else node, columns, needed)


def _inside_case(node: dict[str, Any], columns: pl.LazyFrame, needed: pl.Expr) -> Iterator[Mask]:
    holds = _expr(node["predicate"]).fill_null(value=False)
    yield from _masks(node["predicate"], columns, needed)
    yield from _masks(node["truthy"], columns, needed & holds)
    yield from _masks(node["falsy"], columns, needed & ~holds)


def _inside_binary(node: dict[str, Any], columns: pl.LazyFrame, needed: pl.Expr) -> Iterator[Mask]:
    sides = node["left"], node["right"]
    for side, other in (sides, sides[::-1]):
        # Where one side decides, the other does not matter: `height > 0 AND weight / height > 20`.
        if node["op"] in ("And", "LogicalAnd"):
            asked = needed & _expr(other).fill_null(value=True)
        elif node["op"] in ("Or", "LogicalOr"):
            asked = needed & ~_expr(other).fill_null(value=False)
        else:
            asked = needed
        yield from _masks(side, columns, asked)


def _inside_function(node: dict[str, Any], columns: pl.LazyFrame, needed: pl.Expr) -> Iterator[Mask]:
    for each in node["input"]:
        yield from _masks(each, columns, needed)
        if node["function"] == "Coalesce":
            needed &= _expr(each).is_null()


_INSIDE: dict[str, Callable[[Any, pl.LazyFrame, pl.Expr], Iterator[Mask]]] = {
    "BinaryExpr": _inside_binary,
    "Function": _inside_function,
    "Ternary": _inside_case,
}


def _of_operation(name: str, node: Any, dtype_of: Callable[[pl.Expr], pl.DataType]) -> Mask | None:
    """Return where one operation leaves its range, of which nothing is known inside."""
    if name == "BinaryExpr":
        operation, inputs = node["op"], [_expr(node["left"]), _expr(node["right"])]
    elif name == "Function":
        operation, inputs = _function(node["function"]), [_expr(each) for each in node["input"]]
    elif name == "Cast":
        operation, inputs = name, [_expr(node["expr"])]
    else:
        return None
    result = _expr({name: node})
    dtype = dtype_of(result)
    types = [dtype_of(each) for each in inputs]
    if not all(each.is_numeric() for each in types):
        return None
    if dtype.is_float():
        before = [each.is_infinite() for each, kind in zip(inputs, types, strict=True) if kind.is_float()]
        mask: pl.Expr | None = result.is_infinite() & ~pl.any_horizontal(*before, pl.lit(value=False))
    elif dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128):
        mask = _wrapped(operation, inputs, result)
    else:
        mask = None
    return None if mask is None else (mask, dtype)


def _wrapped(operation: str, inputs: list[pl.Expr], result: pl.Expr) -> pl.Expr | None:
    """Return where the result of an operation on integers is another one; None where it cannot be."""
    if operation in _EXACT:
        exact = _EXACT[operation](*(each.cast(pl.Int128) for each in inputs))
        return result.cast(pl.Int128) != exact
    if operation == "Pow":
        # A power may have more than 128 bits. What has wrapped around is far from it.
        power = inputs[0].cast(pl.Float64).pow(inputs[1].cast(pl.Float64))
        distance = (result.cast(pl.Float64) - power).abs()
        return power.is_infinite() | (distance > _NEAR * power.abs())
    return result < 0 if operation == "Abs" else None


def _function(node: Any) -> str:
    """Return the name of a function: Polars writes "Abs", {"Pow": ...} or {"Sql": {"Binary": "Mul"}}."""
    while isinstance(node, dict) and "Pow" not in node:
        node = next(iter(node.values()))
    return "Pow" if isinstance(node, dict) else str(node)


def _expr(node: dict[str, Any]) -> pl.Expr:
    return pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")


def _dtype(computed: pl.Expr, columns: pl.LazyFrame) -> pl.DataType:
    return columns.select(it=computed).collect_schema()["it"]
