"""Figures that others published of real data sets, reproduced by the stages.

The data is not part of the project: TECHDECK_TEST_DATA names its folder (default ``../shared/data``). Where
it is missing, the tests are reported as not run, by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from techdeck_tasks.pipeline.registry import StageResult

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

RowsOf = Callable[[StageResult], pl.DataFrame]

DATA = Path(os.environ.get("TECHDECK_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def needs(folder: str) -> pytest.MarkDecorator:
    missing = f"{DATA / folder} is not there; set TECHDECK_TEST_DATA"
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=missing)


ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]


def adult(run_stage: RunStage, rows_of: RowsOf) -> pl.DataFrame:
    # The traps: no header, spaces after the commas, ? for missing, two files, empty lines at their ends, and
    # a full stop after the labels of one of them.
    loaded = rows_of(
        run_stage(
            "dataset_load",
            source=str(DATA / "adult" / "adult-*.csv"),
            has_header=False,
            columns=ADULT,
            trim=True,
            null_values=["?"],
        )
    )
    steps: list[dict[str, Any]] = [
        {"derive": {"income": "RTRIM(income, '.')"}},
        {"derive": {"rich": "income = '>50K'"}},
    ]
    return rows_of(run_stage("data_processing", loaded, steps=steps))


@needs("adult")
def test_adult_women_and_men_earn_over_50k_at_the_published_rates(
    run_stage: RunStage, rows_of: RowsOf
) -> None:
    people = adult(run_stage, rows_of)
    assert people.height == 48_842
    assert people.schema["age"] == pl.Int64
    assert people.filter(pl.any_horizontal(pl.all().is_null())).height == 3_620
    report = run_stage("bias_detection", people, outcome="rich", sensitive=["sex"]).report
    measures = report["measures"]["sex"]
    assert measures["overall_selection_rate"] == pytest.approx(0.2393, abs=5e-5)
    assert measures["groups"]["Female"]["selection_rate"] == pytest.approx(0.1093, abs=5e-5)
    assert measures["groups"]["Male"]["selection_rate"] == pytest.approx(0.3038, abs=5e-5)
    assert measures["demographic_parity_difference"] == pytest.approx(0.19452, abs=5e-6)
    assert measures["demographic_parity_ratio"] == pytest.approx(0.3597, abs=5e-5)


@needs("adult")
def test_adult_has_the_published_number_of_complete_rows(run_stage: RunStage, rows_of: RowsOf) -> None:
    people = adult(run_stage, rows_of)
    complete = rows_of(run_stage("data_processing", people, steps=[{"drop_nulls": []}]))
    assert complete.height == 45_222
    assert complete["rich"].mean() == pytest.approx(0.2478, abs=5e-5)


@needs("german")
def test_german_credit_has_the_published_disparate_impact_of_age_and_sex(
    run_stage: RunStage, rows_of: RowsOf
) -> None:
    loaded = rows_of(
        run_stage(
            "dataset_load",
            source=str(DATA / "german" / "german.csv"),
            has_header=False,
            columns=[f"a{n}" for n in range(1, 21)] + ["credit"],
        )
    )
    steps: list[dict[str, Any]] = [
        {"bin": {"column": "a13", "breaks": [25], "labels": ["young", "old"], "into": "age"}},
        {"derive": {"sex": "CASE WHEN a9 IN ('A92', 'A95') THEN 'female' ELSE 'male' END"}},
    ]
    people = rows_of(run_stage("data_processing", loaded, steps=steps))
    measures = run_stage(
        "bias_detection",
        people,
        outcome="credit",
        favorable=[1],
        sensitive=["age", "sex"],
        reference={"age": "old", "sex": "male"},
    ).report["measures"]
    assert measures["age"]["overall_selection_rate"] == pytest.approx(0.7)
    assert measures["age"]["disparate_impact"] == pytest.approx(0.7948, abs=5e-5)
    assert measures["age"]["demographic_parity_difference"] == pytest.approx(0.1494, abs=5e-5)
    assert measures["age"]["statistical_parity_difference"] == pytest.approx(-0.1494, abs=5e-5)
    assert measures["sex"]["disparate_impact"] == pytest.approx(0.8966, abs=5e-5)


@needs("ricci")
def test_ricci_has_the_published_pass_rates(run_stage: RunStage, rows_of: RowsOf) -> None:
    loaded = rows_of(run_stage("dataset_load", source=str(DATA / "ricci" / "ricci.csv")))
    published = {"Captain": (64.0, 37.5, 37.5), "Lieutenant": (58.1, 31.6, 20.0)}
    for position, rates in published.items():
        steps: list[dict[str, Any]] = [
            {"filter": f"Position = '{position}'"},
            {"derive": {"passed": "Combine >= 70"}},
        ]
        exam = rows_of(run_stage("data_processing", loaded, steps=steps))
        report = run_stage(
            "bias_detection", exam, outcome="passed", sensitive=["Race"], min_group_size=1
        ).report
        groups = report["measures"]["Race"]["groups"]
        found = tuple(round(100 * groups[race]["selection_rate"], 1) for race in "WBH")
        assert found == rates
