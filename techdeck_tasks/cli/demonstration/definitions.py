"""The two pipelines of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_RULES = {
    "age": {"dtype": "int", "ge": 0, "le": 120},
    "sex": {"isin": ["a", "b"]},
    "bmi": {"dtype": "float", "ge": 10, "le": 70},
}


def progression(source: str, folder: Path) -> dict[str, Any]:
    """Return the pipeline that recovers: load, validate, process, measure bias, export."""
    return {
        "name": "diabetes-progression",
        "source": {"url": source, "format": "csv"},
        "stages": [
            {"name": "load", "stage": "dataset_load"},
            {
                "name": "validate",
                "stage": "validation",
                "needs": ["load"],
                "params": {"columns": _RULES, "max_bad_share": 0.05},
            },
            {
                "name": "process",
                "stage": "data_processing",
                "needs": ["validate"],
                "params": {
                    "steps": [
                        {"derive": {"fast_progression": "progression > 140"}},
                        {"bin": {"column": "age", "breaks": [40, 60], "labels": ["young", "middle", "old"]}},
                        {"select": ["age", "sex", "bmi", "bp", "fast_progression"]},
                    ]
                },
            },
            {
                "name": "bias",
                "stage": "bias_detection",
                "needs": ["process"],
                "params": {
                    "outcome": "fast_progression",
                    "sensitive": ["sex"],
                    "thresholds": {"max_demographic_parity_difference": 0.2},
                },
            },
            {
                "name": "export",
                "stage": "export",
                "needs": ["process", "bias"],
                "params": {"destination": str(folder / "progression.parquet")},
            },
        ],
    }


def strict(source: Path, folder: Path) -> dict[str, Any]:
    """Return the pipeline that fails for good: it tolerates no bad row, and the file has some."""
    return {
        "name": "diabetes-strict",
        "source": {"url": str(source)},
        "stages": [
            {"name": "load", "stage": "dataset_load"},
            {
                "name": "validate",
                "stage": "validation",
                "needs": ["load"],
                "params": {"columns": _RULES, "max_bad_rows": 0},
            },
            {
                "name": "export",
                "stage": "export",
                "needs": ["validate"],
                "params": {"destination": str(folder / "never.parquet")},
            },
        ],
    }
