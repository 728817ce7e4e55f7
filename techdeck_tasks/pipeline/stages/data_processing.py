"""The stage that transforms rows: a list of steps, each one operation, computed in one lazy plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Self

import polars as pl
from pydantic import Field, FiniteFloat, model_validator

from techdeck_tasks.clock import SystemClock
from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef
from techdeck_tasks.pipeline.data.data_url import DataUrl, local_path
from techdeck_tasks.pipeline.data.dtypes import DtypeName, converted
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.registry import (
    Partitioning,
    StageContext,
    StageParams,
    StageResult,
    concatenated,
    stage,
)
from techdeck_tasks.pipeline.stages import sampling
from techdeck_tasks.pipeline.stages.deidentify import Method, deidentified, read_key
from techdeck_tasks.pipeline.stages.expression import expression


class Bins(StageParams):
    """Cut `column` at `breaks` (ascending) into ``len(breaks) + 1`` ranges, each closed on its right.

    `labels` names the ranges; `into` is the new column (default: ``<column>_bin``).
    """

    column: str
    breaks: list[FiniteFloat] = Field(min_length=1)
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


class Sample(StageParams):
    """Keep a share of the rows, or so many (all, if there are fewer). The same seed keeps the same."""

    share: float | None = Field(None, gt=0, le=1)
    rows: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.share is None) == (self.rows is None):
            raise ValueError("give share or rows")
        return self


class Split(StageParams):
    """Write ``train`` or ``test`` into the column `into`. The same seed splits the same way."""

    test_share: float = Field(0.2, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=1 << 63)
    into: str = "split"


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
        fill_nulls: column to the value that takes the place of null.
        bin: cut a number into ranges.
        deidentify: column to method: drop, mask, hash, redact, age_band, zip3 or year (`deidentified`).
        sample: keep rows by chance.
        split: mark rows for training and for testing.
    """

    select: list[str] | None = Field(None, min_length=1)
    rename: dict[str, str] | None = None
    cast: dict[str, DtypeName] | None = None
    derive: dict[str, str] | None = None
    filter: str | None = None
    dedupe: list[str] | None = None
    drop_nulls: list[str] | None = None
    fill_nulls: dict[str, str | int | float | bool] | None = None
    bin: Bins | None = None
    deidentify: dict[str, Method] | None = Field(None, min_length=1)
    sample: Sample | None = None
    split: Split | None = None

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
    """Parameters of `data_processing`.

    Attributes:
        steps: what is done, in order.
        hash_key_file: the worker's file with the secret key of `deidentify`'s method ``hash``, 32 bytes or
            more; a definition is no place for the key itself.
    """

    steps: list[Step] = Field(min_length=1, max_length=500)
    hash_key_file: DataUrl | None = None

    @model_validator(mode="after")
    def _key_for_hash(self) -> Self:
        hashes = any("hash" in (step.deidentify or {}).values() for step in self.steps)
        if hashes and self.hash_key_file is None:
            raise ValueError("the method hash needs hash_key_file, the file with its secret key")
        return self

    def hash_key(self) -> bytes:
        """Return the key of the method ``hash``."""
        assert self.hash_key_file is not None, "the model refuses the method without it"
        return read_key(local_path(self.hash_key_file))


_ROW_WISE = {"select", "rename", "cast", "derive", "filter", "drop_nulls", "fill_nulls", "bin", "deidentify"}
"""The operations that look at one row at a time; the others are done on the whole."""


def _processed_part(context: StageContext, params: DataProcessingParams) -> StageResult:
    frame = context.input()
    for index, step in enumerate(params.steps):
        frame = _applied(frame, step, f"steps[{index}]", params)
    steps = [step.operation[0] for step in params.steps]
    return StageResult(frame, {"rows_in": context.input_rows, "steps": steps})


def _joined(context: StageContext, params: DataProcessingParams, parts: Sequence[StageResult]) -> StageResult:
    joined = concatenated(context, params, parts)
    assert isinstance(joined.output, ArtifactRef), "each part hands rows on"
    return StageResult(joined.output, {**joined.report, "rows": joined.output.rows})


@stage(
    "data_processing",
    params=DataProcessingParams,
    summary="select, rename, cast, derive, filter, dedupe, de-identify, sample, split",
    partitioning=Partitioning(
        part=_processed_part,
        join=_joined,
        row_wise=lambda params: all(step.operation[0] in _ROW_WISE for step in params.steps),
    ),
)
def data_processing(context: StageContext, params: DataProcessingParams) -> StageResult:
    """Apply the steps.

    Raises:
        ValidationError: a step names a column that is not there.
        DataProcessingError: a value does not permit an operation.
    """
    processed = _processed_part(context, params)
    assert isinstance(processed.output, pl.LazyFrame), "the steps are one plan"
    output = context.write(processed.output)
    return StageResult(output, {**processed.report, "rows": output.rows})


def _applied(frame: pl.LazyFrame, step: Step, where: str, params: DataProcessingParams) -> pl.LazyFrame:
    schema = frame.collect_schema()
    name, given = step.operation
    _check_columns(_columns_of(name, given), schema, where, name)
    with frame_errors(f"{where}.{name}"):
        done = _OPERATIONS[name](frame, given, params)
        done.collect_schema()  # what does not fit is told of the step, and not of all of them
        return done


def _columns_of(name: str, given: Any) -> set[str]:
    """Return the columns that a step needs."""
    if name in ("derive", "filter"):
        texts = given.values() if name == "derive" else [given]
        return {root for text in texts for root in expression(text).meta.root_names()}
    if name == "bin":
        return {given.column}
    return set() if name in ("sample", "split") else set(given)


def _cast(frame: pl.LazyFrame, given: dict[str, DtypeName], _: DataProcessingParams) -> pl.LazyFrame:
    schema = frame.collect_schema()
    return frame.with_columns(
        converted(column, schema[column], to, strict=True) for column, to in given.items()
    )


def _sample(frame: pl.LazyFrame, given: Sample, _: DataProcessingParams) -> pl.LazyFrame:
    kept = (
        sampling.chosen(given.seed, given.share)
        if given.share is not None
        else sampling.first_chosen(given.seed, given.rows or 1)
    )
    return sampling.unnumbered(sampling.numbered(frame).filter(kept))


def _split(frame: pl.LazyFrame, given: Split, _: DataProcessingParams) -> pl.LazyFrame:
    part = (
        pl.when(sampling.chosen(given.seed, given.test_share)).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    return sampling.unnumbered(sampling.numbered(frame).with_columns(part.alias(given.into)))


_OPERATIONS: dict[str, Callable[[pl.LazyFrame, Any, DataProcessingParams], pl.LazyFrame]] = {
    "select": lambda frame, given, _: frame.select(given),
    "rename": lambda frame, given, _: frame.rename(given),
    "cast": _cast,
    "derive": lambda frame, given, _: frame.with_columns(
        expression(text).alias(column) for column, text in given.items()
    ),
    "filter": lambda frame, given, _: frame.filter(expression(given)),
    "dedupe": lambda frame, given, _: frame.unique(subset=given or None, keep="first", maintain_order=True),
    "drop_nulls": lambda frame, given, _: frame.drop_nulls(given or None),
    "fill_nulls": lambda frame, given, _: _filled(frame, given),
    "bin": lambda frame, given, _: frame.with_columns(
        _ranges(given).alias(given.into or f"{given.column}_bin")
    ),
    "deidentify": lambda frame, given, params: deidentified(
        frame, given, params.hash_key, SystemClock().now().year
    ),
    "sample": _sample,
    "split": _split,
}


def _filled(frame: pl.LazyFrame, given: dict[str, str | int | float | bool]) -> pl.LazyFrame:
    schema = frame.collect_schema()
    return frame.with_columns(
        pl.col(column).fill_null(_filler(column, value, schema[column])) for column, value in given.items()
    )


def _filler(column: str, value: str | float | bool, dtype: pl.DataType) -> pl.Expr:
    """Return what takes the place of null in a column, of which it makes none of another kind.

    Raises:
        ValidationError: it would, or is beyond the range of the type.
    """
    wanted: DtypeName | None = "date" if dtype == pl.Date else "datetime" if dtype == pl.Datetime else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if wanted is not None and isinstance(value, str):
            given = pl.LazyFrame({column: [value]}).select(
                converted(column, pl.String(), wanted, strict=True)
            )
            return pl.lit(given.collect().item()).cast(dtype)
        if dtype.is_integer() and isinstance(value, int) and is_number:
            return pl.lit(pl.Series([value], dtype=dtype).item(), dtype=dtype)
    except (pl.exceptions.PolarsError, OverflowError, TypeError):
        fits = False
    else:
        fits = wanted is None
        if dtype.is_numeric():
            fits = is_number
        elif dtype == pl.Boolean:
            fits = isinstance(value, bool)
    if not fits:
        raise ValidationError(
            f"fill_nulls: the value for {column!r} is none of its type, {str(dtype.base_type()).lower()}; "
            "give one that is, or cast the column first",
            field="params.steps",
            validation_rule="fill_nulls",
        )
    return pl.lit(value)


def _ranges(bins: Bins) -> pl.Expr:
    """Return the label of the range that holds the value; null for null and for not-a-number."""
    # All digits: two breaks may differ in the last.
    edges = ["-inf", *(repr(edge).removesuffix(".0") for edge in bins.breaks), "inf"]
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
