"""Polars SQL expressions in parameters: they compute from the columns of a row, and do nothing else."""

from __future__ import annotations

import re

import polars as pl

MAX_EXPRESSION_CHARS = 2000
# Polars takes a sub-query in some places (`exists (select ...)`); literals are taken away before the search.
_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_SUB_QUERY = re.compile(r"\bselect\b", re.IGNORECASE)


def expression(text: str) -> pl.Expr:
    """Return a Polars expression from SQL; queries and statements are refused.

    Raises:
        ValueError: the text is too long or no expression. Its content is not repeated.
    """
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ValueError(f"an expression has at most {MAX_EXPRESSION_CHARS} characters, not {len(text)}")
    if _SUB_QUERY.search(_LITERAL.sub("''", text)):
        raise ValueError("an expression computes from columns of the row; SELECT is not allowed")
    try:
        parsed = pl.sql_expr(text)
        parsed.meta.root_names()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"this is no Polars SQL expression ({type(error).__name__})") from None
    return parsed
