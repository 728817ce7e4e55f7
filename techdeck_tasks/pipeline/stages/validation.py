"""The stage that checks rows against a schema (pandera) and sets the bad ones aside, with the reasons.

Rows are checked in batches; only uniqueness looks at the whole data. Reports and errors count rows by rule
and never show a value; the values are in the quarantine artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl

from techdeck_tasks.errors import DataProcessingError, ValidationError
from techdeck_tasks.pipeline.data.artifacts import ArtifactRef
from techdeck_tasks.pipeline.data.batches import batches_of
from techdeck_tasks.pipeline.data.frame_errors import frame_errors
from techdeck_tasks.pipeline.registry import (
    QUARANTINE,
    Partitioning,
    StageContext,
    StageResult,
    concatenated,
    stage,
)
from techdeck_tasks.pipeline.stages.row_check import ROW_COLUMN, RowCheck, ValidationParams

BATCH_ROWS = 100_000


def validation(context: StageContext, params: ValidationParams) -> StageResult:
    """Hand the good rows on, with the types of the rules, and write the bad ones to a quarantine artifact.

    The quarantine has the rows as they came, their number (from 0) in ``_row`` and the broken rules, as
    ``age.ge``, in ``_reasons``.

    Raises:
        ValidationError: a column is missing, a rule does not fit its column's type, or more rows are bad than
            allowed; the text counts them by rule.
    """
    good, bad = context.workspace / "good", context.workspace / "bad"
    good.mkdir()
    bad.mkdir()
    by_rule: Counter[str] = Counter()
    with frame_errors("validation"):
        for number, (accepted, refused) in enumerate(_checked(context, params, by_rule)):
            accepted.write_parquet(_part(good, number))
            refused.write_parquet(_part(bad, number))
        output = context.write(pl.scan_parquet(good / "*.parquet"))
        quarantine = context.write(pl.scan_parquet(bad / "*.parquet"), QUARANTINE)
    return _judged(context, params, output, quarantine, by_rule)


def _validated_part(context: StageContext, params: ValidationParams) -> StageResult:
    """Do one part; its rows are counted from its own first, and none are too many yet."""
    by_rule: Counter[str] = Counter()
    with frame_errors("validation"):
        checked = list(_checked(context, params, by_rule))
        quarantine = context.write(pl.concat(refused for _, refused in checked), QUARANTINE)
    report = {
        "rows_in": context.input_rows,
        "bad_rows_by_rule": by_rule,
        QUARANTINE: quarantine.to_dict(),
    }
    return StageResult(pl.concat(accepted for accepted, _ in checked), report)


def _joined(context: StageContext, params: ValidationParams, parts: Sequence[StageResult]) -> StageResult:
    """Number the bad rows in the whole, and judge how many there are."""
    joined = concatenated(context, params, parts)
    assert isinstance(joined.output, ArtifactRef), "each part hands rows on"
    firsts = accumulate((part.report["rows_in"] for part in parts), initial=0)
    refused = [
        context.artifacts.scan(
            ArtifactRef.from_dict(part.report[QUARANTINE]), context.workspace
        ).with_columns(pl.col(ROW_COLUMN).cast(pl.Int64) + first)
        for first, part in zip(firsts, parts, strict=False)
        if part.report[QUARANTINE]["rows"] or first == 0
    ]
    quarantine = context.write(pl.concat(refused), QUARANTINE)
    by_rule = Counter(joined.report["bad_rows_by_rule"])
    return _judged(context, params, joined.output, quarantine, by_rule)


def _judged(
    context: StageContext,
    params: ValidationParams,
    output: ArtifactRef,
    quarantine: ArtifactRef,
    by_rule: Counter[str],
) -> StageResult:
    total = context.input_rows
    counts = dict(sorted(by_rule.items()))
    if not params.allows(quarantine.rows, total):
        told = ", ".join(f"{rule} {count}" for rule, count in counts.items())
        raise ValidationError(
            f"validation: {quarantine.rows} of {total} rows are bad, more than allowed; by rule: {told}; "
            "mend the data, or raise max_bad_rows or max_bad_share",
            field="params.columns",
            validation_rule=next(iter(counts), None),
        )
    report = {
        "rows_in": total,
        "rows": output.rows,
        "bad_rows": quarantine.rows,
        "bad_rows_by_rule": counts,
        QUARANTINE: quarantine.to_dict(),
    }
    return StageResult(output, report)


def _checked(
    context: StageContext, params: ValidationParams, by_rule: Counter[str]
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield the good rows and the bad ones of each batch, and count these by rule."""
    frame = context.input()
    schema = frame.collect_schema()
    if missing := sorted(params.needed_columns - set(schema)):
        raise ValidationError(
            f"validation: the data has no column {', '.join(map(repr, missing[:5]))}; check the rules",
            field="params.columns",
            validation_rule="column_present",
        )
    check = RowCheck(frame, schema, params)
    done = 0
    # What is at hand is one piece, in memory already.
    batch_rows = BATCH_ROWS if context.rows_at_hand is None else max(1, context.input_rows)
    for batch in batches_of(frame, context.input_rows, batch_rows):
        yield check.split(batch.with_row_index(ROW_COLUMN, offset=done), by_rule)
        done += batch.height
        context.report_progress(done, context.input_rows)
    if done != context.input_rows:
        # Polars' batches end, without an error, where one of its threads panics.
        raise DataProcessingError(
            f"validation: {done} of {context.input_rows} rows could be read; run the stage again",
            operation="validation",
        )


stage(
    "validation",
    params=ValidationParams,
    summary="check rows against a schema, set bad rows aside (pandera)",
    # Whether a value is unique, only all rows can tell.
    partitioning=Partitioning(
        part=_validated_part,
        join=_joined,
        row_wise=lambda params: not any(rules.unique for rules in params.columns.values()),
    ),
)(validation)


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.parquet"
