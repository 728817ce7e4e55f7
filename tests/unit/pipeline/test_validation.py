from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from pydantic import ValidationError as ParamsError

from techdeck_tasks.errors import DataProcessingError, ValidationError
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef, ArtifactStore
from techdeck_tasks.pipeline.registry import StageResult
from techdeck_tasks.pipeline.stages import validation
from techdeck_tasks.pipeline.stages.row_check import ValidationParams

if TYPE_CHECKING:
    from tests.unit.pipeline.conftest import RunStage

RowsOf = Callable[[StageResult], pl.DataFrame]

PEOPLE = pl.DataFrame(
    {
        "id": [1, 2, 2, 4, 5, 6],
        "age": ["36", "51", "old", "-3", None, "44"],
        "sex": ["F", "M", "F", "M", "F", "X"],
        "code": ["A1", "A2", "A3", "A4", "A5", "7A"],
        "note": ["", "", "", "", "", ""],
    }
)
COLUMNS: dict[str, Any] = {
    "id": {"unique": True},
    "age": {"dtype": "int", "ge": 0, "le": 120},
    "sex": {"isin": ["F", "M"]},
    "code": {"regex": "A[0-9]"},
}


def quarantine(result: StageResult, store: ArtifactStore, folder: Path) -> pl.DataFrame:
    return store.scan(ArtifactRef.from_dict(result.report["quarantine"]), folder).collect()


def test_good_rows_go_on_with_the_types_of_the_rules(run_stage: RunStage, rows_of: RowsOf) -> None:
    frame = rows_of(run_stage("validation", PEOPLE, columns=COLUMNS, max_bad_rows=10))
    assert frame.columns == PEOPLE.columns
    assert frame.schema["age"] == pl.Int64
    assert frame["id"].to_list() == [1]


def test_bad_rows_are_set_aside_as_they_came_with_every_reason(
    run_stage: RunStage, store: ArtifactStore, tmp_path: Path
) -> None:
    result = run_stage("validation", PEOPLE, columns=COLUMNS, max_bad_rows=10)
    assert quarantine(result, store, tmp_path).select("_row", "age", "_reasons").rows() == [
        (1, "51", ["id.unique"]),
        (2, "old", ["id.unique", "age.dtype"]),
        (3, "-3", ["age.ge"]),
        (4, None, ["age.nullable"]),
        (5, "44", ["sex.isin", "code.regex"]),
    ]


def test_the_report_counts_and_shows_no_value(run_stage: RunStage) -> None:
    report = dict(run_stage("validation", PEOPLE, columns=COLUMNS, max_bad_rows=10).report)
    assert (report["rows_in"], report["rows"], report["bad_rows"]) == (6, 1, 5)
    assert report["bad_rows_by_rule"] == {
        "age.dtype": 1,
        "age.ge": 1,
        "age.nullable": 1,
        "code.regex": 1,
        "id.unique": 2,
        "sex.isin": 1,
    }
    assert not [value for value in ("old", "-3", "7A") if value in str(report["bad_rows_by_rule"])]


def test_a_unique_column_may_have_any_name(run_stage: RunStage) -> None:
    for name in ("n", "value", "_row_"):
        result = run_stage(
            "validation", pl.DataFrame({name: [1, 2, 2]}), columns={name: {"unique": True}}, max_bad_rows=2
        )
        assert result.report["bad_rows"] == 2


def test_without_a_bad_row_all_go_on_and_the_quarantine_is_empty(
    run_stage: RunStage, rows_of: RowsOf, store: ArtifactStore, tmp_path: Path
) -> None:
    result = run_stage("validation", PEOPLE, columns={"id": {"ge": 0}})
    assert rows_of(result).equals(PEOPLE)
    assert quarantine(result, store, tmp_path).height == 0


@pytest.mark.parametrize(
    ("limits", "passes"),
    [
        ({}, False),
        ({"max_bad_rows": 4}, False),
        ({"max_bad_rows": 5}, True),
        ({"max_bad_share": 0.8}, False),
        ({"max_bad_share": 0.84}, True),
        ({"max_bad_rows": 5, "max_bad_share": 0.1}, False),
    ],
)
def test_more_bad_rows_than_allowed_fail_the_stage(
    run_stage: RunStage, limits: dict[str, float], passes: bool
) -> None:
    if passes:
        run_stage("validation", PEOPLE, columns=COLUMNS, **limits)
        return
    with pytest.raises(ValidationError) as caught:
        run_stage("validation", PEOPLE, columns=COLUMNS, **limits)
    assert "5 of 6 rows are bad" in caught.value.message
    assert (
        "age.dtype 1, age.ge 1, age.nullable 1, code.regex 1, id.unique 2, sex.isin 1" in caught.value.message
    )
    assert "old" not in str(caught.value.to_dict())


def test_data_without_a_bad_row_passes_whole(run_stage: RunStage, rows_of: RowsOf) -> None:
    frame = PEOPLE.head(1)
    assert rows_of(run_stage("validation", frame, columns=COLUMNS)).height == 1


def test_data_without_rows_passes(run_stage: RunStage, rows_of: RowsOf) -> None:
    assert rows_of(run_stage("validation", PEOPLE.clear(), columns=COLUMNS)).shape == (0, 5)


def test_batches_give_the_same_as_the_whole(
    run_stage: RunStage, rows_of: RowsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.concat([PEOPLE.with_columns(pl.col("id") + 10 * n) for n in range(50)])
    whole = run_stage("validation", frame, columns=COLUMNS, max_bad_rows=300)
    monkeypatch.setattr(validation, "BATCH_ROWS", 7)
    batched = run_stage("validation", frame, columns=COLUMNS, max_bad_rows=300)
    assert whole.report["bad_rows_by_rule"] == batched.report["bad_rows_by_rule"]
    assert rows_of(whole).equals(rows_of(batched))


def test_a_value_repeated_in_another_batch_is_not_unique(
    run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "BATCH_ROWS", 2)
    frame = pl.DataFrame({"id": [1, 2, 3, 4, None, None, 1]})
    report = run_stage(
        "validation", frame, columns={"id": {"unique": True, "nullable": True}}, max_bad_rows=2
    ).report
    assert report["bad_rows_by_rule"] == {"id.unique": 2}


def test_nullable_permits_null_and_not_a_number(run_stage: RunStage) -> None:
    frame = pl.DataFrame({"bmi": [21.5, None, float("nan")]})
    result = run_stage("validation", frame, columns={"bmi": {"ge": 10}}, max_bad_rows=2)
    assert result.report["bad_rows_by_rule"] == {"bmi.nullable": 2}


def test_text_becomes_dates_and_booleans(run_stage: RunStage, rows_of: RowsOf) -> None:
    frame = pl.DataFrame({"born": ["1980-02-29", "1981-02-29"], "smoker": ["yes", "maybe"]})
    columns = {"born": {"dtype": "date"}, "smoker": {"dtype": "bool"}}
    result = run_stage("validation", frame, columns=columns, max_bad_rows=1)
    assert result.report["bad_rows_by_rule"] == {"born.dtype": 1, "smoker.dtype": 1}
    assert rows_of(result).schema == {"born": pl.Date, "smoker": pl.Boolean}


def test_a_missing_column_is_named(run_stage: RunStage) -> None:
    with pytest.raises(ValidationError, match="no column 'weight'"):
        run_stage("validation", PEOPLE, columns={"weight": {}})


@pytest.mark.parametrize("rule", [{"ge": 3}, {"regex": "A"}, {"isin": [1]}])
def test_a_rule_that_does_not_fit_its_column_is_told_so(run_stage: RunStage, rule: dict[str, Any]) -> None:
    column = "id" if "regex" in rule else "sex"
    with pytest.raises(ValidationError, match=f"cannot be applied to the type of '{column}'; set its dtype"):
        run_stage("validation", PEOPLE, columns={column: rule}, max_bad_rows=10)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"a": {"regex": "("}},
        {"a": {"ge": 2, "le": 1}},
        {"a": {"dtype": "integer"}},
        {"a": {"min": 1}},
        {"a": {"isin": []}},
    ],
)
def test_rules_that_make_no_sense_are_refused_before_the_run(columns: dict[str, Any]) -> None:
    with pytest.raises(ParamsError):
        ValidationParams.model_validate({"columns": columns})


STAYS = pl.DataFrame(
    {
        "admitted": ["2024-01-02", "2024-01-05", "2024-01-05", "x"],
        "discharged": ["2024-01-04", "2024-01-01", None, "2024-01-09"],
    }
)


def test_a_rule_over_several_columns_sees_them_converted(run_stage: RunStage, rows_of: RowsOf) -> None:
    dates = {"dtype": "date", "nullable": True}
    result = run_stage(
        "validation",
        STAYS,
        columns={"admitted": dates, "discharged": dates},
        rows={"order": "discharged >= admitted"},
        max_bad_rows=2,
    )
    assert result.report["bad_rows_by_rule"] == {"admitted.dtype": 1, "rows.order": 1}
    assert rows_of(result)["admitted"].to_list() == [date(2024, 1, 2), date(2024, 1, 5)]


def test_rules_over_rows_are_enough_and_must_be_expressions(run_stage: RunStage) -> None:
    with pytest.raises(ValidationError, match=r"1 of 4 rows are bad.*rows\.order 1"):
        run_stage("validation", STAYS, rows={"order": "discharged >= admitted OR admitted = 'x'"})
    with pytest.raises(ValidationError, match="no column 'died'"):
        run_stage("validation", STAYS, rows={"order": "died >= admitted"})
    for wrong in ("((", "SELECT 1"):
        with pytest.raises(ParamsError, match="expression"):
            run_stage("validation", STAYS, rows={"order": wrong})
    with pytest.raises(ParamsError, match="give rules"):
        run_stage("validation", STAYS)


@pytest.mark.parametrize(
    ("values", "dtype", "kept"),
    [
        ([1.0, 1.5, float("nan"), 1e30], "int", [1]),
        (["01/02/2020", "2020-01-02"], "date", [date(2020, 1, 2)]),
        ([20200101, 1], "date", []),
        ([0, 1, 2], "bool", [False, True]),
        ([0.0, 1.0, 0.5], "bool", [False, True]),
        (
            [
                "2020-01-01 10:00",
                "2020-01-01T10:00:00.5",
                "2020-01-01T10:00:00Z",
                "2020-01-01T10:00:00+02:00",
                "1.1.",
            ],
            "datetime",
            [
                datetime.fromisoformat("2020-01-01T10:00"),
                datetime.fromisoformat("2020-01-01T10:00:00.500"),
                datetime.fromisoformat("2020-01-01T10:00"),
                datetime.fromisoformat("2020-01-01T08:00"),
            ],
        ),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_neither_rounded_nor_guessed_at(
    run_stage: RunStage, rows_of: RowsOf, values: list[Any], dtype: str, kept: list[Any]
) -> None:
    frame = pl.DataFrame({"a": values})
    rules = {"a": {"dtype": dtype, "nullable": True}}
    assert rows_of(run_stage("validation", frame, columns=rules, max_bad_rows=9))["a"].to_list() == kept
    with pytest.raises(DataProcessingError):
        run_stage("data_processing", frame, steps=[{"cast": {"a": dtype}}])


def test_a_bound_of_a_large_integer_is_exact(run_stage: RunStage, rows_of: RowsOf) -> None:
    most = 9_007_199_254_740_992
    result = run_stage(
        "validation", pl.DataFrame({"a": [most, most + 1]}), columns={"a": {"le": most}}, max_bad_rows=1
    )
    assert rows_of(result)["a"].to_list() == [most]


@pytest.mark.parametrize(
    "params",
    [
        {"columns": {"a": {"isin": [1, "b"]}}},
        {"columns": {"a": {"isin": [1, True]}}},
        {"rows": {"r": "1 > 2"}},
        {"rows": {"r": "a > avg(a)"}},
    ],
)
def test_a_rule_that_cannot_be_applied_row_by_row_is_refused_with_the_definition(
    params: dict[str, Any],
) -> None:
    with pytest.raises(ParamsError):
        ValidationParams.model_validate(params)


def test_a_column_may_have_any_name(run_stage: RunStage, rows_of: RowsOf) -> None:
    frame = pl.DataFrame({"self": [1, -1], "exprs": ["a", "b"]})
    rules = {"self": {"ge": 0}, "exprs": {"isin": ["a", "b"]}}
    checked = rows_of(run_stage("validation", frame, columns=rules, max_bad_rows=1))
    steps = [{"derive": {"self": "self + 1"}}]
    assert rows_of(run_stage("data_processing", checked, steps=steps))["self"].to_list() == [2]


@pytest.mark.parametrize("values", [[9007199254740993, 9007199254740992], ["9007199254740993", "1.5"]])
def test_an_integer_that_a_float_would_round_is_bad(run_stage: RunStage, values: list[Any]) -> None:
    result = run_stage(
        "validation", pl.DataFrame({"x": values}), columns={"x": {"dtype": "float"}}, max_bad_rows=1
    )
    assert result.report["bad_rows_by_rule"] == {"x.dtype": 1}


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0], [0, 1, 2]])
@pytest.mark.parametrize("dtype", [None, "float"])
def test_integers_in_isin_are_values_of_a_column_of_numbers(
    run_stage: RunStage, values: list[float], dtype: str | None
) -> None:
    rules = {"x": {"isin": [0, 1], "dtype": dtype}}
    result = run_stage("validation", pl.DataFrame({"x": values}), columns=rules, max_bad_rows=1)
    assert result.report["bad_rows_by_rule"] == {"x.isin": 1}


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([{"a": 1}], "int"),
        ([[1]], "str"),
        ([b"1"], "str"),
        ([timedelta(1)], "int"),
        ([date(2020, 1, 1)], "int"),
        ([datetime(2020, 1, 1, tzinfo=UTC)], "float"),
        ([True], "date"),
        ([time(1)], "datetime"),
    ],
)
def test_what_no_value_of_a_type_can_become_is_told_of_the_column(
    run_stage: RunStage, values: list[Any], dtype: str
) -> None:
    with pytest.raises(ValidationError, match=f"'x' is of type .*, of which no value is a {dtype}; choose"):
        run_stage("validation", pl.DataFrame({"x": values}), columns={"x": {"dtype": dtype}}, max_bad_rows=1)


def test_categories_are_converted_as_text_is_and_decimals_are_not_rounded(
    run_stage: RunStage, rows_of: RowsOf
) -> None:
    frame = pl.DataFrame({"c": ["1", "x"], "d": [Decimal("2.0"), Decimal("1.5")]})
    frame = frame.with_columns(pl.col("c").cast(pl.Categorical))
    rules = {"c": {"dtype": "int"}, "d": {"dtype": "int"}}
    result = run_stage("validation", frame, columns=rules, max_bad_rows=1)
    assert result.report["bad_rows_by_rule"] == {"c.dtype": 1, "d.dtype": 1}
    assert rows_of(result).rows() == [(1, 2)]


def test_a_moment_with_a_zone_becomes_that_of_utc_and_its_date_that_of_the_place(
    run_stage: RunStage, rows_of: RowsOf
) -> None:
    moment = pl.Series([datetime(2020, 1, 1)]).dt.replace_time_zone("Europe/Berlin")  # noqa: DTZ001 - the zone comes next
    rules = {"a": {"dtype": "datetime"}, "b": {"dtype": "date"}}
    result = run_stage("validation", pl.DataFrame({"a": moment, "b": moment}), columns=rules)
    assert rows_of(result).rows() == [(datetime(2019, 12, 31, 23), date(2020, 1, 1))]  # noqa: DTZ001 - has none now


@pytest.mark.parametrize("value", [date(2020, 1, 1), timedelta(1), True])
def test_a_bound_is_for_numbers_only(run_stage: RunStage, value: Any) -> None:
    frame = pl.DataFrame({"x": [value]})
    with pytest.raises(ValidationError, match="the rule 'le' cannot be applied to the type of 'x'"):
        run_stage("validation", frame, columns={"x": {"le": 99999}})


def test_dates_are_compared_by_a_rule_of_rows(run_stage: RunStage) -> None:
    frame = pl.DataFrame({"day": [date(2019, 1, 1), date(2020, 1, 1)]})
    result = run_stage("validation", frame, rows={"since": "day >= DATE '2020-01-01'"}, max_bad_rows=1)
    assert result.report["bad_rows_by_rule"] == {"rows.since": 1}
