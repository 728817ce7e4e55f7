"""CSV as Polars reads it: the dialect found, types inferred, a whole file or a piece of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import polars as pl
from pydantic import Field

from techdeck_tasks.pipeline.registry import StageParams
from techdeck_tasks.pipeline.stages.dialect import detect_quote, detect_separator, read_sample
from techdeck_tasks.pipeline.stages.dtypes import DtypeName, dtype_of

Rows = TypeVar("Rows", pl.LazyFrame, pl.DataFrame)


class CsvParams(StageParams):
    """How CSV is read. Rows without any value are left out, as empty lines are.

    Attributes:
        has_header: the first row has the names.
        columns: the names of the columns, in order; needed without a header.
        separator: one character; ``auto`` finds comma, semicolon, tab or pipe.
        quote: the character around fields that have a separator in them; ``auto`` finds " or '.
        comment_prefix: rows that begin so are left out.
        trim: take away spaces around values and names, before anything else is done with them.
        null_values: texts that mean "missing".
        infer_types: False reads every column as text, so that the zeros of ``01234`` stay.
        dtypes: types of columns by name; the others are inferred from the first 10,000 rows, and from the
            whole file where a later value does not fit.
    """

    has_header: bool = True
    columns: list[str] | None = Field(None, min_length=1)
    separator: Literal["auto"] | Annotated[str, Field(min_length=1, max_length=1)] = "auto"
    quote: Literal["auto", '"', "'"] = "auto"
    comment_prefix: str | None = Field(None, min_length=1, max_length=5)
    trim: bool = False
    null_values: list[str] = Field(default_factory=lambda: [""])
    infer_types: bool = True
    dtypes: dict[str, DtypeName] = Field(default_factory=dict)


def csv_scan(path: Path, params: CsvParams) -> CsvScan:
    """Return the scan of a CSV file, with the dialect given or found."""
    sample = read_sample(path, params.comment_prefix)
    quote = detect_quote(sample) if params.quote == "auto" else params.quote
    separator = params.separator
    if separator == "auto":
        separator = detect_separator(sample, quote)
    return CsvScan(path, params, separator, quote)


@dataclass(frozen=True, slots=True)
class CsvScan:
    """A UTF-8 file with its dialect."""

    path: Path
    params: CsvParams
    separator: str
    quote: str

    def frame(self, inference_rows: int | None) -> pl.LazyFrame:
        """Return the rows; types are inferred from so many of them, None: from all."""
        return self._scan(
            self.path,
            has_header=self.params.has_header,
            new_columns=self.params.columns,
            null_values=[text for text in self.params.null_values if text],
            empty_string_is_null="" in self.params.null_values,
            schema_overrides={name: dtype_of(dtype) for name, dtype in self.params.dtypes.items()},
            infer_schema=self.params.infer_types,
            infer_schema_length=inference_rows,
        )

    def piece(self, data: bytes, schema: pl.Schema, *, first: bool) -> pl.DataFrame:
        """Return the rows of whole lines of the file, its `first` or later ones, with the types given."""
        rows = self._raw(
            data,
            has_header=first and self.params.has_header,
            null_values=[text for text in self.params.null_values if text],
            empty_string_is_null="" in self.params.null_values,
            schema=schema,
        ).collect(engine="streaming")
        # Most pieces have no blank row, and to look for one in the first column is cheaper than a filter.
        name, dtype = next(iter(rows.schema.items()))
        return _without_blank(rows) if rows.select(_is_blank(name, dtype).any()).item() else rows

    def trimmed(self, target: Path) -> CsvScan:
        """Return the scan of a copy without spaces around values and names."""
        raw = self._scan(
            self.path,
            has_header=self.params.has_header,
            new_columns=self.params.columns,
            infer_schema=False,
            empty_string_is_null=False,
        )
        names = {name: name.strip() for name in raw.collect_schema()}
        with target.open("wb") as file:
            raw.select(pl.all().str.strip_chars()).rename(names).sink_csv(file)
        params = self.params.model_copy(update={"has_header": True, "columns": None, "comment_prefix": None})
        return CsvScan(target, params, ",", '"')

    def _scan(self, source: Path, **options: Any) -> pl.LazyFrame:
        return _without_blank(self._raw(source, **options))

    def _raw(self, source: Path | bytes, **options: Any) -> pl.LazyFrame:
        return pl.scan_csv(
            source,
            separator=self.separator,
            quote_char=self.quote,
            comment_prefix=self.params.comment_prefix,
            glob=False,
            **options,
        )


def _without_blank(rows: Rows) -> Rows:
    """Take empty lines away, which Polars reads as rows of nulls or of empty texts."""
    schema = rows.collect_schema()
    if len(schema) == 1:
        return rows
    return rows.remove(pl.all_horizontal(_is_blank(name, dtype) for name, dtype in schema.items()))


def _is_blank(name: str, dtype: pl.DataType) -> pl.Expr:
    missing = pl.col(name).is_null()
    return missing | (pl.col(name) == "") if dtype == pl.String else missing
