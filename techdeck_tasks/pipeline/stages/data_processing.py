"""The stage that transforms rows: a list of steps, each one operation, computed in one lazy plan."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Self

import polars as pl
from pydantic import Field, model_validator

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.registry import StageContext, StageParams, StageResult, stage
from techdeck_tasks.pipeline.stages.dtypes import DtypeName, converted

MAX_EXPRESSION_CHARS = 2000
# Polars takes a sub-query in some places (`exists (select ...)`); literals are taken away before the search.
_LITERAL = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_SUB_QUERY = re.compile(r"\bselect\b", re.IGNORECASE)


class Bins(StageParams):
    """Cut `column` at `breaks` (ascending) into ``len(breaks) + 1`` ranges, each closed on its right.

    `labels` names the ranges; `into` is the new column (default: ``<column>_bin``).
    """

    column: str
    breaks: list[float] = Field(min_length=1)
    labels: list[str] | None = None
    into: str | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if any(after <= before for before, after in pairwise(self.breaks)):
            raise ValueError("breaks must ascend")
        if self.labels is not None and len(self.labels) != len(self.breaks) + 1:
            raise ValueError(
                f"{len(self.breaks)} breaks need {len(self.breaks) + 1} labels, not {len(self.labels)}"
            )
        return self


class Step(StageParams):
    """One operation.

    Attributes:
        select: keep these columns, in this order.
        rename: old name to new name.
        cast: column to type; a value that cannot be converted fails the stage.
        derive: new (or replaced) column to a Polars SQL expression, as ``"weight / (height * height)"``.
        filter: keep the rows for which this SQL expression is true.
        dedupe: keep the first of the rows that agree in these columns; an empty list means all columns.
        drop_nulls: drop the rows that have a null in these columns; an empty list means all columns.
        bin: cut a number into ranges.
    """

    select: list[str] | None = Field(None, min_length=1)
    rename: dict[str, str] | None = None
    cast: dict[str, DtypeName] | None = None
    derive: dict[str, str] | None = None
    filter: str | None = None
    dedupe: list[str] | None = None
    drop_nulls: list[str] | None = None
    bin: Bins | None = None

    @model_validator(mode="after")
    def _one_operation(self) -> Self:
        if len(self.model_fields_set) != 1 or self.operation[1] is None:
            raise ValueError(f"a step is exactly one of {', '.join(type(self).model_fields)}")
        for text in [*(self.derive or {}).values(), *([self.filter] if self.filter is not None else [])]:
            expression(text)
        return self

    @property
    def operation(self) -> tuple[str, Any]:
        """The name of the operation, and what it is given."""
        name = next(iter(self.model_fields_set))
        return name, getattr(self, name)


class DataProcessingParams(StageParams):
    """Parameters of `data_processing`: the steps, in order."""

    steps: list[Step] = Field(min_length=1, max_length=500)


@stage(
    "data_processing",
    params=DataProcessingParams,
    summary="select, rename, cast, derive, filter, dedupe, bin",
)
def data_processing(context: StageContext, params: DataProcessingParams) -> StageResult:
    """Apply the steps.

    Raises:
        ValidationError: a step names a column that is not there.
        DataProcessingError: a value does not permit an operation.
    """
    before = context.input_ref().rows
    frame = context.input()
    for index, step in enumerate(params.steps):
        frame = _applied(frame, step, f"steps[{index}]")
    output = context.write(frame)
    steps = [step.operation[0] for step in params.steps]
    return StageResult(output, {"rows_in": before, "rows": output.rows, "steps": steps})


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


def _applied(frame: pl.LazyFrame, step: Step, where: str) -> pl.LazyFrame:  # noqa: PLR0911 - one a step
    schema = frame.collect_schema()
    name, given = step.operation
    if name == "derive":
        exprs = {column: expression(text) for column, text in given.items()}
        _check_columns(
            {root for expr in exprs.values() for root in expr.meta.root_names()}, schema, where, name
        )
        return frame.with_columns(**exprs)
    if name == "filter":
        condition = expression(given)
        _check_columns(set(condition.meta.root_names()), schema, where, name)
        return frame.filter(condition)
    _check_columns({given.column} if name == "bin" else set(given), schema, where, name)
    if name == "select":
        return frame.select(given)
    if name == "rename":
        return frame.rename(given)
    if name == "cast":
        return frame.with_columns(
            converted(column, schema[column], to, strict=True) for column, to in given.items()
        )
    if name == "dedupe":
        return frame.unique(subset=given or None, keep="first", maintain_order=True)
    if name == "drop_nulls":
        return frame.drop_nulls(given or None)
    return frame.with_columns(_ranges(given).alias(given.into or f"{given.column}_bin"))


def _ranges(bins: Bins) -> pl.Expr:
    """Return the label of the range that holds the value; null for null and for not-a-number."""
    edges = ["-inf", *(f"{edge:g}" for edge in bins.breaks), "inf"]
    labels = bins.labels or [f"({low}, {high}]" for low, high in pairwise(edges)]
    value = pl.col(bins.column).cast(pl.Float64)
    chosen = pl.lit(labels[-1])
    for edge, label in reversed(list(zip(bins.breaks, labels, strict=False))):
        chosen = pl.when(value <= edge).then(pl.lit(label)).otherwise(chosen)
    return pl.when(value.is_null() | value.is_nan()).then(None).otherwise(chosen)


def _check_columns(names: set[str], schema: pl.Schema, where: str, operation: str) -> None:
    if missing := sorted(names - set(schema)):
        raise ValidationError(
            f"{where}.{operation}: the data has no column {', '.join(map(repr, missing[:5]))}; "
            "check the spelling and the steps before",
            field=f"params.{where}.{operation}",
        )
