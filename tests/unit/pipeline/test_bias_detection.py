from __future__ import annotations

import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from pydantic import ValidationError as ParamsError

from techdeck_tasks.errors import BiasDetectionError, ValidationError
from techdeck_tasks.pipeline.stages.bias_detection import BiasDetectionParams

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

# 40 women of whom 10 are selected, 20 men of whom 10 are.
PEOPLE = pl.DataFrame(
    {
        "sex": ["F"] * 40 + ["M"] * 20 + ["X"] * 3 + [None] * 2,
        "hired": [1] * 10 + [0] * 30 + [1] * 10 + [0] * 10 + [1] * 3 + [1, None],
    }
)


def measure(run_stage: RunStage, frame: pl.DataFrame = PEOPLE, **params: Any) -> dict[str, Any]:
    given = {"outcome": "hired", "sensitive": ["sex"]} | params
    measures: dict[str, Any] = run_stage("bias_detection", frame, **given).report["measures"]["sex"]
    return measures


def test_the_rates_of_groups_are_measured_and_compared(run_stage: RunStage) -> None:
    measures = measure(run_stage)
    assert measures["groups"] == {
        "F": {"rows": 40, "selection_rate": 0.25},
        "M": {"rows": 20, "selection_rate": 0.5},
    }
    assert measures["overall_selection_rate"] == pytest.approx(1 / 3)
    assert measures["demographic_parity_difference"] == pytest.approx(0.25)
    assert measures["demographic_parity_ratio"] == pytest.approx(0.5)
    assert measures["disparate_impact"] == pytest.approx(0.5)


def test_small_groups_and_rows_without_a_group_are_counted_only(run_stage: RunStage) -> None:
    measures = measure(run_stage)
    assert (measures["small_groups"], measures["rows_in_small_groups"]) == (1, 3)
    assert measures["rows_without_group_or_outcome"] == 2
    assert "X" in measure(run_stage, min_group_size=1)["groups"]


def test_a_reference_group_decides_the_direction_of_disparate_impact(run_stage: RunStage) -> None:
    assert measure(run_stage, reference={"sex": "F"})["disparate_impact"] == pytest.approx(2)
    assert measure(run_stage, reference={"sex": "M"})["disparate_impact"] == pytest.approx(0.5)
    with pytest.raises(ValidationError, match="the reference group of 'sex' is not among its groups"):
        measure(run_stage, reference={"sex": "male"})


@pytest.mark.parametrize(
    ("favorable", "values"),
    [(["yes"], ("yes", "no")), ([True], (True, False)), ([1], (1, 0)), ([2, "3"], (3, 1))],
)
def test_the_favourable_outcome_may_be_of_any_type(
    run_stage: RunStage, favorable: list[Any], values: tuple[Any, Any]
) -> None:
    good, bad = values
    frame = PEOPLE.drop_nulls().with_columns(
        hired=pl.when(pl.col("hired") == 1).then(pl.lit(good)).otherwise(pl.lit(bad))
    )
    assert measure(run_stage, frame, favorable=favorable)["demographic_parity_ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("thresholds", "bias_type"),
    [
        ({"max_demographic_parity_difference": 0.2}, "demographic_parity_difference:sex"),
        ({"min_demographic_parity_ratio": 0.8}, "demographic_parity_ratio:sex"),
        ({"min_disparate_impact": 0.8}, "disparate_impact:sex"),
    ],
)
def test_a_measure_beyond_its_threshold_is_a_finding(
    run_stage: RunStage, thresholds: dict[str, float], bias_type: str
) -> None:
    with pytest.raises(BiasDetectionError) as caught:
        measure(run_stage, thresholds=thresholds)
    assert caught.value.details["bias_type"] == bias_type
    assert caught.value.details["actual_value"] == pytest.approx(0.25 if "difference" in bias_type else 0.5)


def test_measures_on_their_thresholds_pass_and_the_data_goes_on_unchanged(run_stage: RunStage) -> None:
    limits = {
        "max_demographic_parity_difference": 0.25,
        "min_demographic_parity_ratio": 0.5,
        "min_disparate_impact": 0.5,
    }
    measure(run_stage, thresholds=limits)


def test_when_nobody_is_selected_there_is_no_disparity(run_stage: RunStage) -> None:
    measures = measure(run_stage, PEOPLE.with_columns(hired=pl.lit(0)), reference={"sex": "M"})
    assert measures["demographic_parity_difference"] == 0
    assert measures["demographic_parity_ratio"] == 1
    assert measures["disparate_impact"] is None


def test_what_cannot_be_compared_is_told_with_its_remedy(run_stage: RunStage) -> None:
    with pytest.raises(ValidationError, match="no column 'gender'"):
        measure(run_stage, sensitive=["gender"])
    with pytest.raises(
        ValidationError, match="'sex' has 0 groups of at least 100 rows with outcome and label; two are"
    ):
        measure(run_stage, min_group_size=100)
    many = pl.DataFrame({"sex": [str(n) for n in range(51)], "hired": [1] * 51})
    with pytest.raises(ValidationError, match="has 51 groups, 50 can be compared; bin it first"):
        measure(run_stage, many, min_group_size=1)


def test_a_missing_extra_is_answered_with_the_command(
    run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fairlearn.metrics", None)
    with pytest.raises(ValidationError, match=r"pip install 'techdeck-tasks\[bias\]'"):
        measure(run_stage)


@pytest.mark.parametrize(
    "params",
    [
        {"outcome": "y", "sensitive": []},
        {"outcome": "y", "sensitive": ["s"], "favorable": []},
        {"outcome": "y", "sensitive": ["s"], "reference": {"sex": "M"}},
        {"outcome": "y", "sensitive": ["s"], "thresholds": {"max_demographic_parity_difference": 2}},
        {"outcome": "y", "sensitive": ["s"], "min_group_size": 0},
    ],
)
def test_params_that_make_no_sense_are_refused_before_the_run(params: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        BiasDetectionParams.model_validate(params)


# Of 100 people in each group: actual and predicted favourable, missed, falsely favoured, rightly refused.
CONFUSION = {"a": (40, 10, 5, 45), "b": (20, 20, 12, 48)}


def predictions() -> pl.DataFrame:
    rows: list[tuple[str, int, int]] = []
    for group, (hit, missed, false_alarm, refused) in CONFUSION.items():
        rows += [(group, 1, 1)] * hit + [(group, 1, 0)] * missed
        rows += [(group, 0, 1)] * false_alarm + [(group, 0, 0)] * refused
    return pl.DataFrame(rows, schema=["group", "truth", "predicted"], orient="row")


def test_equalized_odds_compare_the_rates_of_hits_and_of_false_alarms(run_stage: RunStage) -> None:
    measures = run_stage(
        "bias_detection", predictions(), outcome="predicted", label="truth", sensitive=["group"]
    ).report["measures"]["group"]
    assert measures["groups"]["a"]["true_positive_rate"] == pytest.approx(40 / 50)
    assert measures["groups"]["b"]["false_positive_rate"] == pytest.approx(12 / 60)
    assert measures["equalized_odds_difference"] == pytest.approx(0.8 - 0.5)
    assert measures["equalized_odds_ratio"] == pytest.approx(0.1 / 0.2)


@pytest.mark.parametrize(
    "thresholds", [{"max_equalized_odds_difference": 0.2}, {"min_equalized_odds_ratio": 0.6}]
)
def test_unequal_odds_are_a_finding(run_stage: RunStage, thresholds: dict[str, float]) -> None:
    with pytest.raises(BiasDetectionError, match=r"equalized odds .* of 'group' is 0"):
        run_stage(
            "bias_detection",
            predictions(),
            outcome="predicted",
            label="truth",
            sensitive=["group"],
            thresholds=thresholds,
        )


def test_a_threshold_on_odds_without_a_label_is_refused(run_stage: RunStage) -> None:
    with pytest.raises(ParamsError, match="needs label"):
        run_stage(
            "bias_detection",
            predictions(),
            outcome="predicted",
            sensitive=["group"],
            thresholds={"max_equalized_odds_difference": 0.2},
        )


def test_the_chart_is_well_formed_whatever_groups_are_called(run_stage: RunStage) -> None:
    names = {"a": "<script>alert(1)</script>", "b": 'x" onload="\x00&'}
    frame = predictions().with_columns(pl.col("group").replace(names))
    chart = run_stage("bias_detection", frame, outcome="predicted", sensitive=["group"]).report["chart"]
    root = ET.fromstring(chart)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} == {
        "svg",
        "title",
        "rect",
        "text",
        "line",
    }
    assert "45.0% of 100" in [element.text for element in root.iter()]
    assert "http" not in chart.replace("http://www.w3.org/2000/svg", "")


def test_a_group_without_a_positive_has_no_rate_of_hits_and_is_not_compared_by_it(
    run_stage: RunStage,
) -> None:
    frame = predictions().vstack(
        pl.DataFrame({"group": ["c"] * 20, "truth": [0] * 20, "predicted": [0] * 20})
    )
    measures = run_stage(
        "bias_detection", frame, outcome="predicted", label="truth", sensitive=["group"]
    ).report["measures"]["group"]
    assert measures["groups"]["c"]["true_positive_rate"] is None
    assert measures["equalized_odds_difference"] == pytest.approx(0.3)


def outcomes(*values: Any) -> pl.DataFrame:
    """Return 20 women of whom 5, and 20 men of whom 10, have the second of two values."""
    unfavorable, favorable = values
    return pl.DataFrame(
        {
            "sex": ["F"] * 20 + ["M"] * 20,
            "y": [favorable] * 5 + [unfavorable] * 15 + [favorable] * 10 + [unfavorable] * 10,
        }
    )


@pytest.mark.parametrize(
    ("values", "favorable"),
    [
        ((0.0, 1.0), [1, True]),
        ((Decimal("0.00"), Decimal("1.00")), [1, True]),
        ((0, 1), [1.0]),
        (("False", "True"), [1, True]),
        ((" 0", " 1"), [1, True]),
        ((0.25, 0.5), [0.5]),
    ],
)
def test_a_difference_is_found_however_the_favourable_value_is_written(
    run_stage: RunStage, values: tuple[Any, Any], favorable: list[Any]
) -> None:
    with pytest.raises(BiasDetectionError, match=r"is 0.2500, above its threshold 0.1"):
        run_stage(
            "bias_detection",
            outcomes(*values),
            outcome="y",
            sensitive=["sex"],
            favorable=favorable,
            thresholds={"max_demographic_parity_difference": 0.1},
        )


@pytest.mark.parametrize("values", [("no", "yes"), (2, 3)])
def test_where_no_row_is_favourable_by_the_parameter_nothing_is_called_fair(
    run_stage: RunStage, values: tuple[Any, Any]
) -> None:
    with pytest.raises(ValidationError, match="no row has a favourable value in 'y'"):
        run_stage("bias_detection", outcomes(*values), outcome="y", sensitive=["sex"])


def test_not_a_number_is_no_outcome_and_no_group(run_stage: RunStage) -> None:
    frame = outcomes(0.0, 1.0).vstack(pl.DataFrame({"sex": ["F"] * 30, "y": [float("nan")] * 30}))
    report = run_stage("bias_detection", frame, outcome="y", sensitive=["sex"]).report
    assert report["measures"]["sex"]["groups"]["F"] == {"rows": 20, "selection_rate": 0.25}
    assert report["measures"]["sex"]["rows_without_group_or_outcome"] == 30


@pytest.mark.parametrize("column", ["outcome", "label"])
def test_scores_are_no_decisions_even_where_some_are_1(run_stage: RunStage, column: str) -> None:
    frame = outcomes(0.3, 1.0).with_columns(decided=1)
    columns = {"outcome": "decided", "label": "decided", column: "y"}
    with pytest.raises(ValidationError, match="'y' has fractions, as probabilities and scores do"):
        run_stage("bias_detection", frame, sensitive=["sex"], **columns)
    run_stage("bias_detection", frame, sensitive=["sex"], outcome="y", favorable=[0.3])


@pytest.mark.parametrize("column", ["outcome", "sensitive"])
def test_no_groups_are_made_of_nested_values(run_stage: RunStage, column: str) -> None:
    frame = outcomes(0, 1).with_columns(inner=pl.struct("y"))
    columns = {"outcome": "y", "sensitive": ["sex"], column: "inner" if column == "outcome" else ["inner"]}
    with pytest.raises(ValidationError, match="'inner' has lists, structs or bytes"):
        run_stage("bias_detection", frame, **columns)


@pytest.mark.parametrize("group", ["True", "true"])
def test_a_reference_group_is_written_as_the_values_are(run_stage: RunStage, group: str) -> None:
    frame = outcomes(0, 1).with_columns(member=pl.col("sex") == "F")
    report = run_stage(
        "bias_detection", frame, outcome="y", sensitive=["member"], reference={"member": group}
    ).report
    assert report["measures"]["member"]["statistical_parity_difference"] is not None
