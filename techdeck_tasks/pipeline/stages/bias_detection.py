"""The stage that measures group fairness with fairlearn, and stops a run that exceeds a threshold.

For each sensitive column the rows are counted by group and outcome; the measures come from the counts, so
that memory does not grow with the data. The data passes through unchanged.

selection rate: the share of a group whose outcome is the favourable one.
demographic parity difference: highest minus lowest selection rate; ratio: lowest by highest (Agarwal et al.,
2018).
equalized odds (Hardt et al., 2016), where a column with the truth is named: the larger of the differences,
the smaller of the ratios, of the true and the false positive rates.
disparate impact: the lowest rate of the other groups by the rate of the reference group; without a reference
group, the ratio above (the "four-fifths rule", 29 CFR 1607.4 D, asks for 0.8). Statistical parity difference:
the lowest rate of the other groups minus that of the reference group; below zero it is to their disadvantage.
"""

from __future__ import annotations

from typing import Any, Self

import polars as pl
from pydantic import Field, model_validator

from techdeck_tasks.errors import BiasDetectionError, ValidationError
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.registry import StageContext, StageParams, StageResult, stage
from techdeck_tasks.pipeline.stages.bias_chart import bias_chart

MAX_GROUPS = 50
_TRUTHS = ("true", "false")
_UNFAVORABLE = ("0", "false")


def _affirmative() -> list[str | int | float | bool]:
    return [1, True]


class Thresholds(StageParams):
    """Limits; a measure beyond its limit is a finding. None: not checked. All are rates from 0 to 1."""

    max_demographic_parity_difference: float | None = Field(None, ge=0, le=1)
    min_demographic_parity_ratio: float | None = Field(None, ge=0, le=1)
    min_disparate_impact: float | None = Field(None, ge=0)
    max_equalized_odds_difference: float | None = Field(None, ge=0, le=1)
    min_equalized_odds_ratio: float | None = Field(None, ge=0, le=1)

    @property
    def need_label(self) -> bool:
        """Whether one of them is about equalized odds."""
        return self.max_equalized_odds_difference is not None or self.min_equalized_odds_ratio is not None


class BiasDetectionParams(StageParams):
    """Parameters of `bias_detection`.

    Attributes:
        outcome: the column with the decision or prediction.
        label: the column with the truth, in the same values as `outcome`; gives equalized odds.
        favorable: the values of `outcome` that count as favourable.
        sensitive: the columns whose groups are compared, each for itself.
        reference: by sensitive column, the privileged group; the others are compared with it for disparate
            impact.
        thresholds: when to stop the run; the default measures only.
        min_group_size: smaller groups are left out and counted: a rate of a few people is noise, and points
            at them.
    """

    outcome: str
    label: str | None = None
    favorable: list[str | int | float | bool] = Field(default_factory=_affirmative, min_length=1)
    sensitive: list[str] = Field(min_length=1, max_length=20)
    reference: dict[str, str] = Field(default_factory=dict)
    thresholds: Thresholds = Thresholds()
    min_group_size: int = Field(10, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.thresholds.need_label and self.label is None:
            raise ValueError("a threshold on equalized odds needs label, the column with the truth")
        if other := sorted(set(self.reference) - set(self.sensitive)):
            raise ValueError(f"reference names {', '.join(map(repr, other))}, which is not in sensitive")
        return self

    @property
    def columns(self) -> set[str]:
        """The columns that must be there."""
        return {self.outcome, *self.sensitive} | ({self.label} if self.label is not None else set())


@stage(
    "bias_detection", params=BiasDetectionParams, summary="compare outcome rates between groups (fairlearn)"
)
def bias_detection(context: StageContext, params: BiasDetectionParams) -> StageResult:
    """Measure, report, and refuse what exceeds a threshold.

    Raises:
        BiasDetectionError: a finding; never retried.
        ValidationError: a column is missing, has too many groups, fewer than two groups are large enough,
            no row has a favourable value, or the extra ``bias`` is not installed.
    """
    frame = context.input()
    schema = frame.collect_schema()
    if missing := sorted(params.columns - set(schema)):
        raise ValidationError(
            f"bias_detection: the data has no column {', '.join(map(repr, missing))}; "
            "check outcome, label and sensitive",
            field="params.sensitive",
        )
    _require_plain(schema, params)
    _require_favorable(frame, params)
    measured = {column: _measured(frame, column, params) for column in params.sensitive}
    for column, measures in measured.items():
        _check(column, measures, params.thresholds)
    report = {"rows": context.input_ref().rows, "measures": measured, "chart": bias_chart(measured)}
    return StageResult(context.input_ref(), report)


def _measured(frame: pl.LazyFrame, column: str, params: BiasDetectionParams) -> dict[str, Any]:
    counts, left_out = _counts(frame, column, params)
    metrics = _fairlearn()
    selected = counts["selected"].cast(pl.Int8).to_numpy()
    table = metrics.MetricFrame(
        metrics=metrics.selection_rate,
        y_true=selected,
        y_pred=selected,
        sensitive_features={column: counts["group"].to_list()},
        sample_params={"sample_weight": counts["n"].to_numpy()},
    )
    rates = {str(group): float(rate) for group, rate in table.by_group.items()}
    difference, ratio = float(table.difference()), float(table.ratio()) if any(rates.values()) else 1.0
    odds = (
        {}
        if params.label is None
        else {
            "true_positive_rate": _rates_given(counts, pl.col("actual")),
            "false_positive_rate": _rates_given(counts, ~pl.col("actual")),
        }
    )
    sizes = dict(counts.group_by("group").agg(pl.col("n").sum()).iter_rows())
    return {
        "groups": {
            group: {"rows": int(sizes[group]), "selection_rate": rates[group]}
            | {name: of_groups.get(group) for name, of_groups in odds.items()}
            for group in sorted(rates)
        },
        "overall_selection_rate": float(table.overall),
        "demographic_parity_difference": difference,
        "demographic_parity_ratio": ratio,
        **_against_reference(rates, column, params, ratio),
        **_equalized_odds(list(odds.values())),
        **left_out,
    }


def _rates_given(counts: pl.DataFrame, condition: pl.Expr) -> dict[str, float]:
    """Return the selection rate of each group's rows that meet `condition`; groups without one are out."""
    rows = (
        counts.filter(condition)
        .group_by("group")
        .agg(rate=pl.col("n").filter(pl.col("selected")).sum() / pl.col("n").sum())
    )
    return dict(rows.iter_rows())


def _equalized_odds(odds: list[dict[str, float]]) -> dict[str, float]:
    compared = [list(rates.values()) for rates in odds if len(rates) > 1]
    if not compared:
        return {}
    return {
        "equalized_odds_difference": max(max(rates) - min(rates) for rates in compared),
        "equalized_odds_ratio": min(min(rates) / max(rates) if max(rates) else 1.0 for rates in compared),
    }


def _counts(
    frame: pl.LazyFrame, column: str, params: BiasDetectionParams
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return columns group, selected, actual, n; and how many rows and groups were left out.

    Without a label the outcome stands for the truth: the rates that need one are not asked for.
    """
    favorable = [_plain(value) for value in params.favorable]
    schema = frame.collect_schema()
    with frame_errors(f"counting the groups of {column!r}"):
        counts = (
            frame.select(
                group=_text(column, schema[column]),
                selected=_text(params.outcome, schema[params.outcome]).is_in(favorable),
                actual=_text(params.label or params.outcome, schema[params.label or params.outcome]).is_in(
                    favorable
                ),
            )
            .group_by("group", "selected", "actual")
            .agg(n=pl.len())
            .sort("group", "selected", "actual")
            .collect(engine="streaming")
        )
    known = counts.drop_nulls()
    large = known.filter(pl.col("n").sum().over("group") >= params.min_group_size)
    groups = large["group"].n_unique()
    if groups > MAX_GROUPS:
        raise ValidationError(
            f"bias_detection: {column!r} has {groups} groups, {MAX_GROUPS} can be compared; bin it first",
            field="params.sensitive",
        )
    if groups < 2:  # noqa: PLR2004 - a comparison needs two
        raise ValidationError(
            f"bias_detection: {column!r} has {groups} groups of at least {params.min_group_size} rows "
            "with outcome and label; two are needed: choose another column, coarser groups or a smaller "
            "min_group_size",
            field="params.sensitive",
        )
    left_out = {
        "rows_without_group_or_outcome": _rows(counts) - _rows(known),
        "rows_in_small_groups": _rows(known) - _rows(large),
        "small_groups": int(known["group"].n_unique() - groups),
    }
    return large, left_out


def _require_plain(schema: pl.Schema, params: BiasDetectionParams) -> None:
    unfit = (name for name in params.columns if schema[name].is_nested() or schema[name] == pl.Binary)
    if nested := sorted(unfit):
        raise ValidationError(
            f"bias_detection: {', '.join(map(repr, nested))} has lists, structs or bytes, of which no groups "
            "are made; derive a column of plain values first",
            field="params.sensitive",
        )


def _require_favorable(frame: pl.LazyFrame, params: BiasDetectionParams) -> None:
    """Check that the favourable values are values of the data: where no row has one, no group differs.

    A column of nothing but 0 or false has none either, and says so.
    """
    schema = frame.collect_schema()
    favorable = [_plain(value) for value in params.favorable]
    fractions_asked = any(isinstance(value, float) and value % 1 for value in params.favorable)
    for column in dict.fromkeys([params.outcome, *([params.label] if params.label is not None else [])]):
        text = _text(column, schema[column]).drop_nulls()
        fraction = pl.lit(value=False)
        if schema[column].is_float() or schema[column].is_decimal():
            fraction = (pl.col(column) != pl.col(column).floor()).any()
        with frame_errors(f"looking for favourable values of {column!r}"):
            found = frame.select(
                known=text.is_in([*favorable, *_UNFAVORABLE]).all(),
                favorable=text.is_in(favorable).any(),
                fraction=fraction,
            ).collect(engine="streaming")
        if found["fraction"].item() and not fractions_asked:
            # A few that happen to be 1.0 would be taken for the chosen ones.
            raise ValidationError(
                f"bias_detection: {column!r} has fractions, as probabilities and scores do, and no "
                'decisions; derive one first, as {derive: {chosen: "score >= 0.5"}}',
                field="params.outcome",
            )
        if not found["favorable"].item() and not found["known"].item():
            raise ValidationError(
                f"bias_detection: no row has a favourable value in {column!r}; check favorable, and that "
                "the values are written as there",
                field="params.favorable",
            )


def _text(column: str, dtype: pl.DataType) -> pl.Expr:
    """Return values as text that is the same for 1 and 1.0, True and "true"; missing for not-a-number."""
    values = pl.col(column)
    if dtype == pl.String:
        trimmed = values.str.strip_chars()
        lower = trimmed.str.to_lowercase()
        return pl.when(lower.is_in(_TRUTHS)).then(lower).otherwise(trimmed)
    if dtype.is_numeric() and not dtype.is_integer():
        number = values.cast(pl.Float64).fill_nan(None)
        whole = number.cast(pl.Int64, strict=False)
        return pl.when(whole == number).then(whole.cast(pl.String)).otherwise(number.cast(pl.String))
    return values.cast(pl.String)


def _plain(value: str | float | bool) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return text.lower() if text.lower() in _TRUTHS else text


def _rows(counts: pl.DataFrame) -> int:
    return int(counts["n"].sum())


def _against_reference(
    rates: dict[str, float], column: str, params: BiasDetectionParams, ratio: float
) -> dict[str, float | None]:
    named = params.reference.get(column)
    if named is None:
        return {"disparate_impact": ratio, "statistical_parity_difference": None}
    reference = _plain(named)  # groups are named so
    if reference not in rates:
        raise ValidationError(
            f"bias_detection: the reference group of {column!r} is not among its groups; check its spelling",
            field="params.reference",
        )
    lowest = min(rate for group, rate in rates.items() if group != reference)
    return {
        "disparate_impact": lowest / rates[reference] if rates[reference] else None,
        "statistical_parity_difference": lowest - rates[reference],
    }


def _check(column: str, measures: dict[str, Any], thresholds: Thresholds) -> None:
    if thresholds.need_label and "equalized_odds_difference" not in measures:
        raise ValidationError(
            f"bias_detection: equalized odds of {column!r} cannot be measured: no two groups have rows "
            "of the same truth; use coarser groups, or leave out the threshold",
            field="params.thresholds",
        )
    upper_limits = {
        "demographic_parity_difference": thresholds.max_demographic_parity_difference,
        "equalized_odds_difference": thresholds.max_equalized_odds_difference,
    }
    for name, upper in upper_limits.items():
        value = measures.get(name)
        if upper is not None and value is not None and value > upper:
            raise _finding(column, name, value, upper, "above")
    lower_limits = {
        "demographic_parity_ratio": thresholds.min_demographic_parity_ratio,
        "disparate_impact": thresholds.min_disparate_impact,
        "equalized_odds_ratio": thresholds.min_equalized_odds_ratio,
    }
    for name, lower in lower_limits.items():
        value = measures.get(name)
        if lower is not None and value is not None and value < lower:
            raise _finding(column, name, value, lower, "below")


def _finding(column: str, measure: str, value: float, limit: float, side: str) -> BiasDetectionError:
    return BiasDetectionError(
        f"{measure.replace('_', ' ')} of {column!r} is {value:.4f}, {side} its threshold {limit:g}; "
        "review the data and the decision before going on",
        bias_type=f"{measure}:{column}",
        threshold_exceeded=limit,
        actual_value=value,
    )


def _fairlearn() -> Any:
    try:
        import fairlearn.metrics  # noqa: PLC0415 - an optional extra, and slow to import
    except ImportError:
        raise ValidationError(
            "bias_detection needs fairlearn, which is not installed; run: pip install 'techdeck-tasks[bias]'",
            field="stage",
        ) from None
    return fairlearn.metrics
