"""442 real patients from scikit-learn's diabetes study, written out as a clinic would, a few rows spoiled."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from techdeck_tasks.errors import ValidationError

_AGES = {40: -5, 41: 430}
_WITHOUT_SEX = (120, 121)
_WITHOUT_BMI = (200, 201)
SPOILED_ROWS = len(_AGES) + len(_WITHOUT_SEX) + len(_WITHOUT_BMI)
PLANTED_EMAIL = "erika.mustermann@example.org"
"""Invented, and in every row's contact column: it must turn up in no server."""


def write_patients(path: Path) -> int:
    """Write the patients as CSV and return how many rows.

    Source: Efron et al., Least Angle Regression (2004), as shipped by scikit-learn, unscaled. The record
    numbers and the contact address are invented.
    """
    try:
        from sklearn.datasets import load_diabetes  # noqa: PLC0415 - an optional extra, and slow to import
    except ImportError:
        raise ValidationError(
            "the demo's data comes with scikit-learn; pip install 'techdeck-tasks[bias,embedded]'"
        ) from None
    study = load_diabetes(scaled=False)
    columns = {name: study.data[:, index] for index, name in enumerate(study.feature_names)}
    frame = pl.DataFrame(columns).select(
        pl.format("MRN-{}", pl.int_range(100_001, 100_001 + pl.len())).alias("record"),
        pl.lit(PLANTED_EMAIL).alias("contact"),
        pl.col("age").cast(pl.Int64),
        pl.when(pl.col("sex") == 1).then(pl.lit("a")).otherwise(pl.lit("b")).alias("sex"),
        "bmi",
        "bp",
        pl.Series("progression", study.target),
    )
    spoiled = frame.with_row_index("row").with_columns(
        age=pl.col("row").replace_strict(_AGES, default=pl.col("age")),
        sex=pl.when(pl.col("row").is_in(_WITHOUT_SEX)).then(pl.lit("?")).otherwise("sex"),
        bmi=pl.when(pl.col("row").is_in(_WITHOUT_BMI)).then(None).otherwise("bmi"),
    )
    spoiled = spoiled.drop("row")
    spoiled.write_csv(path)
    return spoiled.height
