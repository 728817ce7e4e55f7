"""Rules of columns and rows, and the check of a batch of rows against them (pandera)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import polars as pl
from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator, model_validator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from techdeck_tasks.errors import ValidationError
from techdeck_tasks.pipeline.data.dtypes import DtypeName, converted
from techdeck_tasks.pipeline.registry import StageParams
from techdeck_tasks.pipeline.stages.expression import expression

if TYPE_CHECKING:
    import pandera.polars as pa

ROW_COLUMN = "_row"
REASONS_COLUMN = "_reasons"


def _exact(value: Any, to_float: ValidatorFunctionWrapHandler) -> int | float:
    """Keep an integer, which a double may not hold."""
    number: float = to_float(value)
    return value if type(value) is int else number


Bound = Annotated[float, WrapValidator(_exact)]


class ColumnRules(StageParams):
    """Rules of one column.

    Attributes:
        dtype: the type; a value that cannot be converted breaks the rule. None keeps the type.
        nullable: null is allowed. (Not-a-number counts as null.)
        ge, le: bounds, both included.
        isin: the values allowed.
        unique: no value twice; every row that shares one is bad.
        regex: text in which this pattern must be found from the start on (Rust's syntax, linear time).
    """

    dtype: DtypeName | None = None
    nullable: bool = False
    ge: Bound | None = None
    le: Bound | None = None
    isin: list[str | int | float | bool] | None = Field(None, min_length=1)
    unique: bool = False
    regex: str | None = Field(None, max_length=500)

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                # pydantic has the regex engine of Polars, and uses it without starting Polars' threads.
                SchemaValidator(core_schema.str_schema(pattern=pattern))
            except SchemaError:
                raise ValueError("this is no regular expression in Rust's syntax") from None
        return pattern

    @field_validator("isin")
    @classmethod
    def _one_kind(
        cls, values: list[str | int | float | bool] | None
    ) -> list[str | int | float | bool] | None:
        kinds = {float if type(value) is int else type(value) for value in values or ()}
        if len(kinds) > 1:
            raise ValueError("the values of isin are of several types; quote all of them, or none")
        return values

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.ge is not None and self.le is not None and self.ge > self.le:
            raise ValueError(f"ge ({self.ge:g}) is above le ({self.le:g})")
        return self


class ValidationParams(StageParams):
    """Parameters of `validation`. With neither limit given, a single bad row fails the stage.

    Attributes:
        columns: the rules by column; other columns pass unchecked.
        rows: rules over several columns, by name: a Polars SQL expression, as ``"discharged >= admitted"``,
            over the converted columns; a row for which it is false is bad. Null, where a column is null,
            passes: `nullable` says whether it may be.
        max_bad_rows: more bad rows than this fail the stage.
        max_bad_share: likewise, a share of all rows from 0 to 1.
    """

    columns: dict[str, ColumnRules] = Field(default_factory=dict)
    rows: dict[str, str] = Field(default_factory=dict, max_length=200)
    max_bad_rows: int | None = Field(None, ge=0)
    max_bad_share: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _some_rule(self) -> Self:
        if not self.columns and not self.rows:
            raise ValueError("give rules for columns or for rows")
        for text in self.rows.values():
            if not expression(text).meta.root_names():
                raise ValueError("a rule of rows names a column at least")
        return self

    @property
    def needed_columns(self) -> set[str]:
        """The columns that a rule names."""
        named = {root for text in self.rows.values() for root in expression(text).meta.root_names()}
        return named | set(self.columns)

    def allows(self, bad: int, rows: int) -> bool:
        """Whether `bad` of `rows` rows may be set aside."""
        if self.max_bad_rows is None and self.max_bad_share is None:
            return bad == 0
        return (self.max_bad_rows is None or bad <= self.max_bad_rows) and (
            self.max_bad_share is None or bad <= self.max_bad_share * rows
        )


class RowCheck:
    """Splits batches into good and bad rows.

    The masks of all rules, true where a row breaks one, are computed together: the way into Polars and back
    for each by itself takes longer than the work.
    """

    def __init__(self, frame: pl.LazyFrame, schema: pl.Schema, params: ValidationParams) -> None:
        self._typed = {
            column: (
                pl.col(column)
                if rules.dtype is None
                else converted(column, schema[column], rules.dtype, strict=False)
            )
            for column, rules in params.columns.items()
        }
        types = frame.with_columns(
            expr.alias(column) for column, expr in self._typed.items()
        ).collect_schema()
        self._rules: list[_Rule] = []
        for column, rules in params.columns.items():
            _require_numbers(column, rules, types[column])
            typed = self._typed[column]
            # What could not be read has become null; it is told once, as `dtype`.
            unread = typed.is_null() & pl.col(column).is_not_null()
            missing = _missing(typed, types[column])
            if rules.dtype is not None:
                self._rules.append(_Rule(f"{column}.dtype", _of_batch(unread)))
            if rules.unique:
                repeated = typed.is_in(_repeated(frame, typed).implode()).fill_null(value=False)
                self._rules.append(_Rule(f"{column}.unique", _of_batch(repeated)))
            if not rules.nullable:
                told = missing if rules.dtype is None else missing & ~unread
                self._rules.append(_Rule(f"{column}.nullable", _of_batch(told)))
            self._rules += [
                _Rule(f"{column}.{check.name}", _of_check(column, check), column)
                for check in _checks(rules, types[column])
            ]
        for name, text in params.rows.items():
            holds = expression(text).cast(pl.Boolean).fill_null(value=True)
            self._rules.append(_Rule(f"rows.{name}", _of_typed(~holds)))

    def split(self, batch: pl.DataFrame, by_rule: Counter[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the good rows, converted, and the bad rows as they came; count the bad ones by rule."""
        typed = batch.with_columns(expr.alias(column) for column, expr in self._typed.items())
        masks = zip(self._rules, self._masks(batch, typed), strict=True)
        broken = [(rule.name, mask) for rule, mask in masks if mask.any()]
        is_bad = pl.repeat(value=False, n=batch.height, eager=True)
        for name, mask in broken:
            by_rule[name] += int(mask.sum())
            is_bad |= mask
        refused = batch.filter(is_bad)
        # Lists of reasons take more time than all rules: only bad rows have one.
        refused = refused.with_columns(
            _reasons([(name, mask.filter(is_bad)) for name, mask in broken], refused.height)
        )
        return typed.filter(~is_bad).drop(ROW_COLUMN), refused

    def _masks(self, batch: pl.DataFrame, typed: pl.DataFrame) -> list[pl.Series]:
        plans = []
        for rule in self._rules:
            with rule.told():
                plans.append(rule.mask(batch.lazy(), typed.lazy()))
        try:
            return [found.to_series() for found in pl.collect_all(plans)]
        except pl.exceptions.PolarsError:
            for rule, plan in zip(self._rules, plans, strict=True):
                with rule.told():  # one by one, to find the one that is to blame
                    plan.collect()
            raise


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule.

    Attributes:
        name: as reports name it.
        mask: makes its mask, as a frame of one column, of a batch as it came and with the types wanted.
        column: where the rule is a check of one column's values: the column.
    """

    name: str
    mask: Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]
    column: str | None = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what Polars raises over a check into an error that names the rule."""
        try:
            yield
        except pl.exceptions.PolarsError:
            if self.column is None:
                raise
            check = self.name.removeprefix(f"{self.column}.")
            raise ValidationError(
                f"validation: the rule {check!r} cannot be applied to the type of {self.column!r}; "
                "set its dtype",
                field=f"params.columns.{self.column}",
                validation_rule=check,
            ) from None


def _of_batch(mask: pl.Expr) -> Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]:
    return lambda batch, _typed: batch.select(mask)


def _of_typed(mask: pl.Expr) -> Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]:
    return lambda _batch, typed: typed.select(mask)


def _of_check(column: str, check: pa.Check) -> Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]:
    from pandera.api.polars.types import PolarsData  # noqa: PLC0415 - as in _checks

    def mask(_batch: pl.LazyFrame, typed: pl.LazyFrame) -> pl.LazyFrame:
        # Not by calling the check: that computes all its failing values, too.
        backend = check.get_backend(typed)(check)
        passed: pl.LazyFrame = backend.apply(PolarsData(typed, column))  # type: ignore[no-untyped-call]  # pandera's
        return passed.select(~pl.all().fill_null(value=True))

    return mask


def _reasons(broken: Sequence[tuple[str, pl.Series]], rows: int) -> pl.Series:
    """Return for each row the list of the rules it breaks."""
    if not rows:
        return pl.Series(REASONS_COLUMN, [], dtype=pl.List(pl.String))
    masks = pl.DataFrame([mask.alias(str(number)) for number, (_, mask) in enumerate(broken)])
    named = pl.concat_list(
        pl.when(pl.col(str(number))).then(pl.lit(name)) for number, (name, _) in enumerate(broken)
    )
    return masks.select(named.list.drop_nulls().alias(REASONS_COLUMN)).to_series()


def _require_numbers(column: str, rules: ColumnRules, dtype: pl.DataType) -> None:
    """Check that what has a bound is a number: Polars compares a date by its days since 1970."""
    bound = "ge" if rules.ge is not None else "le"
    if (rules.ge is not None or rules.le is not None) and (dtype.is_temporal() or dtype == pl.Boolean):
        raise ValidationError(
            f"validation: the rule {bound!r} cannot be applied to the type of {column!r}, no numbers; "
            "use a rule of rows, as \"day >= DATE '2020-01-01'\"",
            field=f"params.columns.{column}",
            validation_rule=bound,
        )


def _checks(rules: ColumnRules, dtype: pl.DataType) -> list[pa.Check]:
    import pandera.polars as pa  # noqa: PLC0415 - takes a second to import, and only this stage needs it

    checks = []
    if rules.ge is not None:
        checks.append(pa.Check.ge(rules.ge, name="ge"))
    if rules.le is not None:
        checks.append(pa.Check.le(rules.le, name="le"))
    if rules.isin is not None:
        # 1 is 1.0, but a list of integers is none of a column of floats to Polars.
        of_numbers = dtype.is_float() and not any(isinstance(value, str | bool) for value in rules.isin)
        allowed = [float(value) for value in rules.isin] if of_numbers else rules.isin
        checks.append(pa.Check.isin(allowed, name="isin"))
    if rules.regex is not None:
        checks.append(pa.Check.str_matches(rules.regex, name="regex"))
    return checks


def _missing(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    missing = values.is_null()
    return missing | values.is_nan().fill_null(value=False) if dtype.is_float() else missing


def _repeated(frame: pl.LazyFrame, typed: pl.Expr) -> pl.Series:
    """Return the values that occur more than once, null aside."""
    counted = frame.select(value=typed).drop_nulls().group_by("value").agg(n=pl.len())
    return counted.filter(pl.col("n") > 1).select("value").collect(engine="streaming").to_series()
