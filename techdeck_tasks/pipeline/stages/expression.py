"""Polars SQL expressions in parameters: they compute from the columns of a row, and do nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import polars as pl

MAX_EXPRESSION_CHARS = 2000
# Polars takes a sub-query in some places (`exists (select ...)`); literals are taken away before the search.
_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_SUB_QUERY = re.compile(r"\bselect\b", re.IGNORECASE)

# Operations inside of one value, whose options have names like those below; and what is data.
_OF_ONE_ROW = frozenset({"Column", "Literal", "StringExpr", "ListExpr", "ArrayExpr", "TemporalExpr"})
# How Polars names what looks at more than one row, or makes several of one.
_OF_MANY_ROWS = frozenset(
    {
        "Agg",
        "Len",
        "Over",
        "Window",
        "Rolling",
        "Rank",
        "Range",
        "Shift",
        "Explode",
        "Quantile",
        "Sort",
        "SortBy",
    }
    | {"Gather", "Filter", "Slice", "Unique", "Reverse", "Diff", "CumCount", "CumSum", "CumProd", "CumMin"}
    | {"CumMax", "FillNullWithStrategy", "Implode", "Correlation", "AnonymousAgg"}
)


def expression(text: str) -> pl.Expr:
    """Return a Polars expression from SQL; queries, statements and aggregates are refused.

    Raises:
        ValueError: the text is too long, no expression, or one of several rows. Its content is not repeated.
    """
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ValueError(f"an expression has at most {MAX_EXPRESSION_CHARS} characters, not {len(text)}")
    if _SUB_QUERY.search(_LITERAL.sub("''", text)):
        raise ValueError("an expression computes from columns of the row; SELECT is not allowed")
    try:
        parsed = pl.sql_expr(text)
        parsed.meta.root_names()
        nodes = set(_names(json.loads(parsed.meta.serialize(format="json"))))
    except RecursionError:
        raise ValueError("the expression is nested too deep; split it into several steps") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"this is no Polars SQL expression ({type(error).__name__})") from None
    if nodes & _OF_MANY_ROWS:
        raise ValueError(
            "an expression computes from one row: an aggregate, a window or a rank would differ with how the "
            "rows are cut into batches"
        )
    return parsed


def _names(node: Any) -> Iterator[str]:
    """Yield the names of operations in a serialised expression, but not the texts that it holds."""
    if isinstance(node, dict):
        for name, inner in node.items():
            if name in _OF_ONE_ROW:
                continue
            yield name
            yield from _names(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _names(inner)
    elif isinstance(node, str):
        yield node
