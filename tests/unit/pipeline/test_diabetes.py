"""The stages on patients' data that comes with scikit-learn, spoiled as real files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_diabetes

from techdeck_tasks.errors import BiasDetectionError
from techdeck_tasks.pipeline.registry import StageResult

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

RowsOf = Callable[[StageResult], pl.DataFrame]

RULES: dict[str, Any] = {
    "patient": {"unique": True},
    "age": {"dtype": "float", "ge": 0, "le": 120},
    "sex": {"isin": [1, 2]},
    "bmi": {"dtype": "float", "ge": 10, "le": 80},
}
STEPS: list[dict[str, Any]] = [
    {"derive": {"high": "progression > 140", "sex": "CASE WHEN sex = 1 THEN 'one' ELSE 'two' END"}},
    {
        "bin": {
            "column": "age",
            "breaks": [40, 60],
            "labels": ["to 40", "to 60", "over 60"],
            "into": "age_group",
        }
    },
    {"select": ["patient", "sex", "age_group", "high"]},
]


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """442 patients as CSV, spoiled: an age of 400, a text for an age, a doubled number, a missing value."""
    bunch = load_diabetes(scaled=False)
    frame = pl.DataFrame(
        np.column_stack([bunch.data, bunch.target]), schema=[*bunch.feature_names, "progression"]
    )
    text = frame.with_row_index("patient").cast({"sex": pl.Int64}).write_csv().splitlines()
    text[5] = text[5].replace(text[5].split(",")[1], "400.0", 1)
    text[50] = text[50].replace(text[50].split(",")[1], "n/a", 1)
    text[100] = "98," + text[100].partition(",")[2]
    fields = text[200].split(",")
    text[200] = ",".join([*fields[:3], "", *fields[4:]])
    path = tmp_path / "patients.csv"
    path.write_text("\n".join(text) + "\n")
    return path


def prepared(run_stage: RunStage, rows_of: RowsOf, patients: Path) -> pl.DataFrame:
    loaded = rows_of(run_stage("dataset_load", source=str(patients)))
    valid = run_stage("validation", loaded, columns=RULES, max_bad_share=0.02)
    assert valid.report["bad_rows_by_rule"] == {
        "age.dtype": 1,
        "age.le": 1,
        "bmi.nullable": 1,
        "patient.unique": 2,
    }
    return rows_of(run_stage("data_processing", rows_of(valid), steps=STEPS))


def test_442_patients_lose_their_spoiled_rows_and_no_other(
    run_stage: RunStage, rows_of: RowsOf, patients: Path
) -> None:
    frame = prepared(run_stage, rows_of, patients)
    assert frame.height == 442 - 5
    assert frame.null_count().row(0) == (0, 0, 0, 0)


def test_age_groups_differ_more_than_a_strict_threshold_allows(
    run_stage: RunStage, rows_of: RowsOf, patients: Path
) -> None:
    frame = prepared(run_stage, rows_of, patients)
    given: dict[str, Any] = {"outcome": "high", "sensitive": ["sex", "age_group"]}
    measures = run_stage("bias_detection", frame, **given).report["measures"]
    assert set(measures["sex"]["groups"]) == {"one", "two"}
    by_hand = frame.group_by("age_group").agg(pl.col("high").mean())["high"]
    expected = float(by_hand.max() - by_hand.min())  # type: ignore[operator,arg-type]  # of a column of numbers
    assert measures["age_group"]["demographic_parity_difference"] == pytest.approx(expected)
    with pytest.raises(BiasDetectionError):
        run_stage("bias_detection", frame, **given, thresholds={"max_demographic_parity_difference": 0.01})
